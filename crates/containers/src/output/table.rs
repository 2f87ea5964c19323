//! Plain tables: columns as wide as they need to be, two blanks between them.

/// A first column is cut to this before another column is left out.
const NAME: usize = 26;

/// The rows under their headings.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let lines = std::iter::once(headings.map(str::to_owned).to_vec()).chain(rows.iter().map(|row| row.to_vec()));
    aligned(&lines.collect::<Vec<_>>())
}

/// The same in lines of at most `width`: names in the first column are cut, and `spare` columns left out in their order.
pub fn fitted<const N: usize>(
    headings: [&str; N],
    rows: &[[String; N]],
    width: Option<usize>,
    spare: &[&str],
) -> String {
    let Some(width) = width else { return table(headings, rows) };
    let mut lines: Vec<Vec<String>> = vec![headings.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| row.to_vec()));
    for heading in spare {
        let widths = widths(&lines);
        let name = widths.first().copied().unwrap_or(0);
        if total(&widths) - name + name.min(NAME) <= width {
            break;
        }
        if let Some(column) = lines.first().and_then(|first| first.iter().position(|cell| cell == heading)) {
            lines.iter_mut().for_each(|line| drop(line.remove(column)));
        }
    }
    let widths = widths(&lines);
    let name = widths.first().copied().unwrap_or(0);
    let room = width.saturating_sub(total(&widths) - name).max(8);
    lines.iter_mut().filter_map(|line| line.first_mut()).for_each(|cell| *cell = cut(cell, room));
    aligned(&lines)
}

/// What follows is cut, as names begin with what they are and end with a number.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.first().map_or(0, Vec::len);
    let widest = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    (0..columns).map(widest).collect()
}

/// With the blanks between columns.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

fn aligned(lines: &[Vec<String>]) -> String {
    let widths = widths(lines);
    let line = |cells: &Vec<String>| {
        let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
