//! A collector that speaks OTLP, by gRPC and by HTTP with protobuf, and keeps what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use actix_web::{HttpResponse, web};
use devkit::wait_until;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message;

use super::LIMIT;

/// A span as it arrived, its bytes as hexadecimal and its values as texts.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: String,
    /// 2 server, 3 client (`SpanKind` of OTLP).
    pub kind: i32,
    /// 0 unset, 2 error (`StatusCode` of OTLP).
    pub status: i32,
    pub attributes: BTreeMap<String, String>,
    /// Name and attributes of each.
    pub events: Vec<(String, BTreeMap<String, String>)>,
    /// Ids of the spans that it links to.
    pub links: Vec<String>,
    /// The `tracestate` of each of these.
    pub link_states: Vec<String>,
    pub resource: BTreeMap<String, String>,
}

/// Receives spans until the end of the test.
pub struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    pub address: SocketAddr,
    spans: Spans,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Recorded>>>);

impl Collector {
    /// By gRPC.
    pub async fn grpc() -> Self {
        let spans = Spans::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(spans.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { endpoint: format!("http://{address}"), address, spans }
    }

    /// By HTTP, at `/v1/traces` alone.
    pub fn http() -> Self {
        Self::serving(|| web::post().to(receive))
    }

    /// By HTTP, taking nothing.
    pub fn answering(status: u16) -> Self {
        let status = actix_web::http::StatusCode::from_u16(status).unwrap();
        Self::serving(move || web::post().to(move || std::future::ready(HttpResponse::new(status))))
    }

    fn serving(route: impl Fn() -> actix_web::Route + Send + Clone + 'static) -> Self {
        let spans = Spans::default();
        let data = web::Data::new(spans.clone());
        let server = actix_web::HttpServer::new(move || {
            let body_limit = web::PayloadConfig::new(64 << 20);
            actix_web::App::new().app_data(data.clone()).app_data(body_limit).route("/v1/traces", route())
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = server.addrs()[0];
        tokio::spawn(server.run());
        Self { endpoint: format!("http://{address}"), address, spans }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Recorded> {
        self.spans.0.lock().unwrap().clone()
    }

    /// The spans of a trace.
    pub fn trace(&self, trace_id: &str) -> Vec<Recorded> {
        self.spans().into_iter().filter(|span| span.trace_id == trace_id).collect()
    }

    /// The spans of a trace once one of this name has arrived; parents end after their children, so a root is the last.
    pub async fn wait_for(&self, trace_id: &str, name: &str) -> Vec<Recorded> {
        let arrived = async || self.trace(trace_id).iter().any(|span| span.name == name);
        wait_until(&format!("the span {name} arrives"), LIMIT, arrived).await.unwrap();
        self.trace(trace_id)
    }
}

async fn receive(spans: web::Data<Spans>, request: actix_web::HttpRequest, body: web::Bytes) -> HttpResponse {
    if request.headers().get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return HttpResponse::UnsupportedMediaType().finish();
    }
    spans.keep(ExportTraceServiceRequest::decode(body).unwrap());
    HttpResponse::Ok()
        .content_type("application/x-protobuf")
        .body(ExportTraceServiceResponse::default().encode_to_vec())
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.keep(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Spans {
    fn keep(&self, request: ExportTraceServiceRequest) {
        for of_resource in request.resource_spans {
            let resource = texts(&of_resource.resource.unwrap_or_default().attributes);
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let events = span.events.iter().map(|event| (event.name.clone(), texts(&event.attributes)));
                self.0.lock().unwrap().push(Recorded {
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    kind: span.kind,
                    status: span.status.map_or(0, |status| status.code),
                    attributes: texts(&span.attributes),
                    events: events.collect(),
                    links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                    link_states: span.links.iter().map(|link| link.trace_state.clone()).collect(),
                    resource: resource.clone(),
                });
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}
