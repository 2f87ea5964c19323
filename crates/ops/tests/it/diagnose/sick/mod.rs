//! Real containers, each made sick in one way: the first finding must be that one.

mod canary;
mod configured;
mod ended;
mod engine;
mod loaded;
mod relay;
mod started;
mod watched;
