//! Both formats of `/metrics`, read as strictly as they are specified: whatever breaks a rule is a failed test.

use std::collections::{BTreeMap, BTreeSet};

/// A metric family of a scrape.
pub struct Family {
    /// As in the catalog: without the ending that plain text gives to counters.
    pub name: String,
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

pub struct Sample {
    /// What follows the family's name: nothing, `_total`, `_bucket`, `_sum` or `_count`.
    pub ending: String,
    pub labels: Labels,
    pub value: f64,
}

pub type Labels = BTreeMap<String, String>;

/// Reads OpenMetrics 1.0 or else Prometheus text 0.0.4.
pub fn families(text: &str, openmetrics: bool) -> Vec<Family> {
    let lines = text.strip_suffix('\n').expect("the last line has an end");
    let lines = if openmetrics { lines.strip_suffix("\n# EOF").expect("# EOF is the last line") } else { lines };
    let mut families: Vec<Family> = Vec::new();
    let mut names = BTreeSet::new();
    for line in lines.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match (words.as_slice(), families.last_mut()) {
            (["#", "HELP", name, help], _) => {
                assert!(names.insert(name.to_string()), "{name} comes twice");
                let (name, help) = (name.to_string(), help.to_string());
                families.push(Family { name, kind: String::new(), help, samples: Vec::new() });
            }
            (["#", "TYPE", name, kind], Some(family)) => {
                assert_eq!(
                    (*name, family.kind.as_str(), family.samples.len()),
                    (family.name.as_str(), "", 0),
                    "{line}"
                );
                family.kind = kind.to_string();
                if *kind == "counter" && !openmetrics {
                    family.name = name.strip_suffix("_total").expect(line).to_owned();
                }
            }
            (["#", "UNIT", name, unit], Some(family)) => {
                let known = *name == family.name && family.samples.is_empty();
                assert!(known && openmetrics && name.ends_with(&format!("_{unit}")), "{line}");
            }
            (["#", ..], _) | (_, None) => panic!("out of place: {line}"),
            (_, Some(family)) => family.samples.push(sample(line, family, openmetrics)),
        }
    }
    families.iter().for_each(check);
    families
}

fn sample(line: &str, family: &Family, openmetrics: bool) -> Sample {
    let (name, rest) = line.split_at(line.find(['{', ' ']).expect(line));
    let (labels, rest) = if rest.starts_with('{') { labels(rest) } else { (Labels::new(), rest) };
    let (value, exemplar) = rest.split_once(" # ").map_or((rest, None), |(value, exemplar)| (value, Some(exemplar)));
    let ending = name.strip_prefix(&family.name).expect(line).to_owned();
    if let Some(exemplar) = exemplar {
        assert!(openmetrics && ["_bucket", "_total"].contains(&ending.as_str()), "no place for an exemplar: {line}");
        let (labels, rest) = self::labels(exemplar);
        assert!(labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum::<usize>() <= 128);
        let numbers = rest.strip_prefix(' ').expect(line).split(' ').map(|number| number.parse::<f64>().expect(line));
        assert!((1..=2).contains(&numbers.count()), "a value and a time: {line}");
    }
    Sample { ending, labels, value: value.strip_prefix(' ').and_then(|value| value.parse().ok()).expect(line) }
}

/// What stands in the braces, and what follows them.
fn labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let mut rest = text.strip_prefix('{').expect(text);
    loop {
        let (name, after) = rest.split_once("=\"").expect(text);
        assert!(name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_'), "{text}");
        assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'), "{text}");
        let mut value = String::new();
        let mut letters = after.chars();
        loop {
            match letters.next().expect(text) {
                '"' => break,
                '\\' => value.push(match letters.next() {
                    Some('n') => '\n',
                    Some(letter @ ('\\' | '"')) => letter,
                    other => panic!("{other:?} is escaped: {text}"),
                }),
                letter => value.push(letter),
            }
        }
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} comes twice: {text}");
        match letters.next() {
            Some(',') => rest = letters.as_str(),
            Some('}') => return (labels, letters.as_str()),
            other => panic!("{other:?} after a label: {text}"),
        }
    }
}

/// What the family as a whole has to be.
fn check(family: &Family) {
    let name = &family.name;
    let mut series = BTreeSet::new();
    let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for Sample { ending, labels, value } in &family.samples {
        assert!(series.insert((ending, labels)), "{name}{ending} {labels:?} comes twice");
        let endings: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{name} is a {other}"),
        };
        assert!(endings.contains(&ending.as_str()), "{name} has no {ending}");
        assert!(family.kind == "gauge" || *value >= 0.0, "{name}{ending} is {value}");
        assert_eq!(labels.contains_key("le"), ending == "_bucket", "{name}{ending}");
        if let Some(bound) = labels.get("le") {
            let others = labels.clone().into_iter().filter(|(label, _)| label != "le").collect();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect(bound) };
            histograms.entry(others).or_default().push((bound, *value));
        }
    }
    for (labels, buckets) in histograms {
        assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{name} {labels:?} {buckets:?}");
        let other = |wanted| family.samples.iter().find(|one| one.ending == wanted && one.labels == labels);
        let all = other("_count").map(|count| (f64::INFINITY, count.value));
        assert!(all.is_some() && buckets.last().copied() == all, "{name} {labels:?} ends with {:?}", buckets.last());
        assert!(other("_sum").is_some(), "{name} {labels:?} has no sum");
    }
}
