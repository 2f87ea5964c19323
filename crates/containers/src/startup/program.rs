//! The file that a container starts: is it there, can it be executed, and by whom?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known about the file, read without starting it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// Where it is, or would have been expected.
    pub path: String,
    /// It is there.
    pub found: bool,
    /// It has the bit for execution, and isn't a folder.
    pub executable: bool,
    /// The machine that it was compiled for, in the words of `uname -m`.
    pub machine: Option<String>,
    /// What must be there to run it: an ELF program's loader, a script's first line.
    pub interpreter: Option<String>,
    /// That is there.
    pub interpreter_found: bool,
}

impl Program {
    /// Reads what a file's first bytes tell.
    pub fn read(path: &str, executable: bool, bytes: &[u8]) -> Self {
        let (machine, interpreter) = match script(bytes) {
            Some(interpreter) => (None, Some(interpreter)),
            None => elf(bytes).unwrap_or_default(),
        };
        let interpreter_found = interpreter.is_none();
        Self { path: path.to_owned(), found: true, executable, machine, interpreter, interpreter_found }
    }

    /// A host of this architecture can't run it.
    pub fn foreign_to(&self, host: &str) -> bool {
        // 64-bit kernels run the 32-bit programs of their family.
        let family = |name: &str| match name {
            "i386" => "x86_64".to_owned(),
            "arm" => "aarch64".to_owned(),
            other => other.to_owned(),
        };
        self.machine.as_ref().is_some_and(|machine| family(machine) != family(host))
    }
}

fn script(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    // A file written on Windows asks for `/bin/sh\r`, which isn't there: kept, so that it shows.
    line.trim_start().split(' ').next().map(|path| path.replace('\r', "\\r"))
}

/// Machine and loader of an ELF program: the few fields needed of its header and its program headers.
fn elf(bytes: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let wide = *bytes.strip_prefix(b"\x7fELF")?.first()? == 2;
    let little = *bytes.get(5)? == 1;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(size)?)?.iter();
        let digit = |all: usize, byte: &u8| (all << 8) | usize::from(*byte);
        Some(if little { bytes.rev().fold(0, digit) } else { bytes.fold(0, digit) })
    };
    let machine = match number(18, 2)? {
        3 => "i386".to_owned(),
        21 => "ppc64le".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("ELF machine {other}"),
    };
    // Offsets in the 64-bit form and in the 32-bit form.
    let (table, size, count) = if wide {
        (number(32, 8), number(54, 2), number(56, 2))
    } else {
        (number(28, 4), number(42, 2), number(44, 2))
    };
    let (at, length) = if wide { ((8, 8), (32, 8)) } else { ((4, 4), (16, 4)) };
    let interpreter = (0..count.unwrap_or(0).min(64)).find_map(|index| {
        let header = table?.checked_add(index.checked_mul(size?)?)?;
        if number(header, 4)? != 3 {
            return None;
        }
        let start = number(header + at.0, at.1)?;
        let text = bytes.get(start..start.checked_add(number(header + length.0, length.1)?)?)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    });
    Some((Some(machine), interpreter))
}
