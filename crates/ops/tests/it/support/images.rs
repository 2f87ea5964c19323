use std::path::Path;
use std::sync::OnceLock;

use devkit::versions;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::Ended;
use super::docker::{docker, succeeded};

/// Images that are deployed here. All but `Service` are made from it or from what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The service as it is, as version 2 or 3.
    Second,
    Third,
    /// An HTTP proxy in front of the service answers 5 of 100 requests with 500.
    FivePercentErrors,
    /// The service, and a migration that takes something away.
    Contract,
    Crashes,
    RunsOutOfMemory,
    OtherArchitecture,
}

/// Answers 5 of 100 requests itself; the service is behind it on another port.
const FAULTY: &str = r"global
  log stdout format raw local0 err
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
frontend faulty
  bind :3000
  http-request return status 500 if { rand(100) lt 5 } !{ path_beg /health /metrics }
  default_backend service
backend service
  server service 127.0.0.1:3001
";

/// Answers for the service what it would about such a migration.
const CONTRACT: &str = r#"case \"$*\" in \
'migrate --check') echo 'schema: Behind([\"V9__contract_drop_email\"])'; exit 1;; \
migrate) exit 0;; \
*) exec /plinth;; esac"#;

impl Image {
    /// How its deploy ended; tried again where the engine missed that the kernel killed for memory, as it sometimes does.
    pub async fn refused(self, cause: &str, deploy: impl AsyncFn() -> Ended) -> Ended {
        let mut ended = deploy().await;
        for _ in 0..4 {
            if self != Self::RunsOutOfMemory || ended.stderr.contains(cause) {
                break;
            }
            ended = deploy().await;
        }
        ended
    }

    /// Its tag; built once in a run, in a second.
    pub async fn tag(self) -> String {
        let base = image().await;
        let tag = format!("{base}-{self:?}").to_lowercase();
        // Other commands than the web process have no proxy.
        let serve = r#"[ $# = 0 ] || exec /plinth \"$@\"; /plinth serve & exec haproxy -db -f /faulty.cfg"#;
        let [debian, haproxy] = ["DEBIAN", "HAPROXY"].map(|name| versions::image(name).unwrap());
        let faulty = FAULTY.replace('\n', "\\n");
        let dockerfile = match self {
            Self::Second => format!("FROM {base}\nLABEL org.opencontainers.image.version=2"),
            Self::Third => format!("FROM {base}\nLABEL org.opencontainers.image.version=3"),
            Self::FivePercentErrors => format!(
                "FROM {haproxy}\nUSER root\nCOPY --from={base} /plinth /plinth\nRUN printf '{faulty}' > /faulty.cfg\n\
                 USER 1001\nENV PORT=3001\nLABEL org.opencontainers.image.version=faulty\n\
                 ENTRYPOINT [\"bash\", \"-c\", \"{serve}\", \"--\"]\nCMD []"
            ),
            Self::Contract => format!(
                "FROM {debian}\nCOPY --from={base} /plinth /plinth\nUSER 1001\n\
                 LABEL org.opencontainers.image.version=contract\n\
                 ENTRYPOINT [\"sh\", \"-c\", \"{CONTRACT}\", \"--\"]\nCMD []"
            ),
            Self::Crashes => format!("FROM {debian}\nENTRYPOINT [\"sh\", \"-c\", \"echo dying; exit 3\"]"),
            Self::RunsOutOfMemory => format!("FROM {debian}\nENTRYPOINT [\"tail\", \"/dev/zero\"]"),
            Self::OtherArchitecture => {
                let import = format!("head -c 10240 /dev/zero | docker import - {tag}");
                // Nothing here can build for another machine; but an image's description is only text.
                let edit = r#"sed 's/"architecture":"[a-z0-9]*"/"architecture":"s390x"/g'"#;
                let script = format!("{import} && docker save {tag} | {edit} | docker load");
                succeeded(Command::new("sh").args(["-c", &script]), "").await;
                return tag;
            }
        };
        succeeded(Command::new("docker").args(["build", "--quiet", "--tag", &tag, "-"]), &dockerfile).await;
        tag
    }
}

/// The service's image of this checkout, or the one that `OPS_TEST_IMAGE` names.
pub async fn image() -> String {
    static GIVEN: OnceLock<Option<String>> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "tests have no command line of their own")]
    let given = GIVEN.get_or_init(|| std::env::var("OPS_TEST_IMAGE").ok());
    if let Some(image) = given {
        return image.clone();
    }
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let args = ["PROFILE=fast", "VERSION=1.2.3-test", "GIT_COMMIT=0123456789abcdef", "BUILD_DATE=2026-01-02T03:04:05Z"];
    BUILT
        .get_or_init(async || {
            let mut command = std::process::Command::new("docker");
            command.args(["build", "--quiet", "--tag", "plinth:test"]);
            command.args(args.iter().flat_map(|arg| ["--build-arg", arg])).arg(workspace);
            // It may compile every crate, for longer than any other command here.
            let built = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
            assert!(built.success(), "docker build failed");
        })
        .await;
    let _ = docker(&["image", "inspect", "plinth:test"]).await;
    "plinth:test".to_owned()
}
