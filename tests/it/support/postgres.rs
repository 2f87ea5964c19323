use devkit::{FaultProxy, Postgres};

use super::{Builder, Sql, TestApp, program};

/// A migrated Postgres of the test's own, to be broken, behind a proxy.
pub struct OwnPostgres {
    pub server: Postgres,
    pub proxy: FaultProxy,
}

impl OwnPostgres {
    /// With users 1 to 500.
    pub async fn start() -> Self {
        let server = Postgres::start().await.unwrap();
        let url = server.url("postgres");
        let output = program().arg("migrate").env("DATABASE_URL", &url).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Sql::connect(&url).await.add_users(500).await;
        let proxy = FaultProxy::start(server.address()).await.unwrap();
        Self { server, proxy }
    }

    /// A service on this database that gives up soon.
    pub fn app(&self) -> Builder {
        TestApp::builder()
            .env("DATABASE_URL", self.server.url_through(self.proxy.port(), "postgres"))
            .env("DATABASE_ACQUIRE_TIMEOUT", "1s")
            .env("REQUEST_TIMEOUT", "3s")
            .env("DATABASE_POOL_MAX", "4")
    }

    /// Waits until a user that isn't cached can be read.
    pub async fn wait_until_used_by(&self, app: &TestApp) {
        let mut id = 400;
        let reads = async || {
            id += 1;
            app.get(&format!("/api/users/{}", 400 + id % 100)).await.status == 200
        };
        devkit::wait_until("uncached users are read again", super::LIMIT, reads).await.unwrap();
    }
}
