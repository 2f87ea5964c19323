//! Who the client is, when some of the addresses on the way may lie.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

#[derive(Clone)]
pub struct Clients {
    trusted: Arc<[IpNet]>,
}

impl Clients {
    pub fn new(trusted: &[IpNet]) -> Self {
        Self { trusted: trusted.into() }
    }

    /// The client's address as a text; empty when there is none.
    pub fn address(&self, request: &ServiceRequest) -> String {
        self.ip(request).map(|ip| ip.to_string()).unwrap_or_default()
    }

    /// The client's address: that of the connection or, behind trusted proxies, the nearest one that isn't theirs.
    pub fn ip(&self, request: &ServiceRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        Some(if self.trusts(peer) { self.forwarded(request.headers()).unwrap_or(peer) } else { peer })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// What the headers say. A proxy that knows one of them passes on the client's other one, so both must agree.
    fn forwarded(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let standard = elements(headers, "forwarded").map(|chain| self.nearest(chain.into_iter().map(for_parameter)));
        let usual = elements(headers, "x-forwarded-for").map(|chain| self.nearest(chain.into_iter().map(Some)));
        standard.or(usual).filter(|_| standard.is_none() || usual.is_none() || standard == usual).flatten()
    }

    /// Read from the right: each proxy appends what it saw, so everything left of the first untrusted one is hearsay.
    fn nearest<'a>(&self, chain: impl DoubleEndedIterator<Item = Option<&'a str>>) -> Option<IpAddr> {
        let mut nearest = None;
        for text in chain.rev() {
            let hop = address(text?)?;
            nearest = Some(hop);
            if !self.trusts(hop) {
                break;
            }
        }
        nearest
    }
}

/// The header's list, whatever number of lines it came in; a line that isn't text is an element that names nobody.
fn elements<'a>(headers: &'a HeaderMap, name: &str) -> Option<Vec<&'a str>> {
    let lines = headers.get_all(name).map(|value| value.to_str().unwrap_or_default());
    headers.contains_key(name).then(|| lines.flat_map(|line| line.split(',')).collect())
}

fn for_parameter(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value)
}

/// `192.0.2.1`, `192.0.2.1:80`, `"[2001:db8::1]:80"` (RFC 7239, section 6).
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let ip: Option<IpAddr> = bare.parse().ok();
    ip.or_else(|| bare.rsplit_once(':')?.0.parse().ok()).map(|ip: IpAddr| ip.to_canonical())
}
