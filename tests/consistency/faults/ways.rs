//! What happens on the ways between the replicas and their servers.

use std::time::Duration;

use devkit::Fault as Net;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::millis;
use crate::world::{Replica, World};

pub fn slow_to_redis(world: &World, random: &mut StdRng) {
    world.replicas.iter().for_each(|replica| replica.to_redis.set(Net::Latency(millis(random, 5, 60))));
}

/// Up to so many milliseconds.
pub fn slow_to_postgres(world: &World, random: &mut StdRng, most: u64) {
    world.replicas.iter().for_each(|replica| replica.to_postgres.set(Net::Latency(millis(random, 0, most))));
}

/// Slows a replica's loads and writes down, so that what is done to it next finds it in the midst of some: before the
/// commit and after it, before it tells Redis and after. Ends by itself.
pub async fn linger(replica: &Replica, random: &mut StdRng) {
    let way = if random.random_ratio(1, 2) { &replica.to_postgres } else { &replica.to_redis };
    way.set(Net::Latency(millis(random, 10, 80)));
    sleep(Duration::from_millis(200)).await;
    way.set(Net::None);
}
