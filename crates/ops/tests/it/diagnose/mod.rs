//! The commands that examine, on real containers made sick on purpose.

mod long;
mod service;
#[cfg(feature = "sick-tests")]
mod sick;
#[cfg_attr(not(feature = "sick-tests"), expect(dead_code, reason = "most of it is for sick containers"))]
mod support;
mod unreachable;
