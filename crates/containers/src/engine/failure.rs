//! Which exit code an answer of the engine's stands for.

use bollard::errors::Error;

use crate::exit::{Exit, Failure};

/// What is asked for isn't there: 3. The engine refused: 8. It didn't answer: 9.
pub fn failure(error: &Error, doing: &str) -> Failure {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => {
            Failure::new(Exit::Precondition, format!("{doing}: {message}"))
        }
        Error::DockerResponseServerError { message, .. } => {
            Failure::new(Exit::OperatorNeeded, format!("{doing}: {message}"))
        }
        error => Failure::new(Exit::Unreachable, format!("{doing}: the engine doesn't answer: {error}")),
    }
}
