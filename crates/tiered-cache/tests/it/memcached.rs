//! L3 on a real memcached.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tiered_cache::{Read, Tier, TieredCache};

use crate::support::{Replica, Source, World, key, metric, until};

/// A memcached of the test's own, gone with it.
struct Memcached {
    child: Child,
    address: String,
}

impl Memcached {
    fn start() -> Self {
        let port = devkit::free_port().unwrap().to_string();
        let program = devkit::find("memcached").unwrap_or_else(|| panic!("install memcached to run this test"));
        let child = Command::new(program)
            .args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "nobody"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { child, address }
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn stored(cache: &TieredCache, result: &str) -> f64 {
    metric(cache, &format!(r#"cache_fill_total{{cache="user",tier="l3",result="{result}"}}"#))
}

/// T32
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_to_memcached_and_come_back_and_its_death_is_survived() {
    let server = Memcached::start();
    until(|| std::net::TcpStream::connect(&server.address).is_ok()).await;
    let (world, source) = (World::new(), Source::new());
    let url = format!("memcache://{}", server.address);
    let a = Replica::with(&world, &source, |builder| builder.memcached(&url)).await;
    let b = Replica::with(&world, &source, |builder| builder.memcached(&url)).await;
    let mut came_back = false;
    // On a busy machine not each one keeps memcached's 50 ms.
    for id in 1..50 {
        let before = stored(&a.cache, "stored");
        a.read(id, Read::Bounded).await.unwrap();
        world.evict(key(id).hash());
        let copied = stored(&a.cache, "stored") > before;
        came_back = copied && b.read(id, Read::Bounded).await.unwrap().tier == Tier::L3;
        if came_back {
            break;
        }
    }
    assert!(came_back, "of fifty copies none came back");

    drop(server);
    for id in 100..150 {
        assert!(a.read(id, Read::Bounded).await.unwrap().stored);
    }
    assert!(stored(&a.cache, "error") > 0.0);
    tokio::time::sleep(Duration::from_millis(1)).await;
}
