//! What exit codes mean.

use crate::container::facts::State;

/// An exit code in words; signals that were sent through the engine tell a stop from a crash.
pub fn explain(state: &State) -> String {
    let sent = |signal: &str| state.signals.iter().any(|sent| sent == signal);
    let why = match state.exit_code {
        0 => "it ended by itself, without an error",
        1 => "the program reported an error",
        2 => "the program says that its arguments or configuration are wrong",
        101 => "a Rust program panicked",
        125 => "the container engine's client or runtime failed, or the program ended with its code for that",
        126 => "the command was found but can't be executed",
        127 => "the command, or its loader, was not found",
        134 => "the program aborted (SIGABRT): a failed assertion, or a panic with panic=abort",
        137 if state.oom_killed => "the kernel killed it for memory (SIGKILL)",
        137 if sent("15") => "it didn't end in the time allowed after SIGTERM, so that the engine killed it (SIGKILL)",
        137 if sent("9") => "it was killed through the engine (SIGKILL)",
        137 => "something killed it (SIGKILL), the engine not: `dmesg` on the host tells if the kernel did for memory",
        139 => "the program crashed (SIGSEGV): invalid memory access",
        143 => "it ended on SIGTERM, as a stopped container does",
        code @ 129..=192 => return format!("{code}: it ended on signal {}", code - 128),
        _ => "the program's own code; its documentation or its last log lines say more",
    };
    format!("{}: {why}", state.exit_code)
}
