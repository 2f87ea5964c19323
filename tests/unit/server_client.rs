use crate::server::client::*;
use actix_web::test::TestRequest;

#[test]
fn behind_trusted_proxies_the_nearest_stranger_is_the_client() {
    let client = |peer: &str, name: &'static str, value: &str| {
        let request = TestRequest::default().peer_addr(format!("{peer}:1234").parse().unwrap());
        let request = request.append_header((name, value)).to_srv_request();
        Clients::new(&["10.0.0.0/8".parse().unwrap()]).address(&request)
    };
    assert_eq!(client("192.0.2.7", "x-forwarded-for", "198.51.100.1"), "192.0.2.7");
    assert_eq!(client("10.0.0.1", "x-forwarded-for", "203.0.113.9, 198.51.100.1, 10.0.0.2"), "198.51.100.1");
    assert_eq!(client("10.0.0.1", "x-forwarded-for", "198.51.100.1, garbage"), "10.0.0.1");
    assert_eq!(client("10.0.0.1", "forwarded", "for=\"[2001:db8::1]:80\";proto=https"), "2001:db8::1");
}

#[test]
fn a_header_that_the_client_chose_decides_nothing() {
    let client = |headers: &[(&'static str, &str)]| {
        let request = TestRequest::default().peer_addr("10.0.0.1:1234".parse().unwrap());
        let request = headers.iter().fold(request, |request, header| request.append_header(*header)).to_srv_request();
        Clients::new(&["10.0.0.0/8".parse().unwrap()]).address(&request)
    };
    let (real, made_up) = ("198.51.100.1", "for=203.0.113.9");
    assert_eq!(client(&[("forwarded", made_up), ("x-forwarded-for", real)]), "10.0.0.1", "they disagree");
    assert_eq!(client(&[("forwarded", "for=198.51.100.1"), ("x-forwarded-for", real)]), real);
    assert_eq!(client(&[("forwarded", made_up), ("forwarded", "for=198.51.100.1, for=10.0.0.2")]), real);
    assert_eq!(client(&[("forwarded", "for=203.0.113.9, proto=https")]), "10.0.0.1", "it names nobody");
    assert_eq!(client(&[("forwarded", "for=203.0.113.9, for=unknown")]), "10.0.0.1");
    assert_eq!(client(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "")]), "10.0.0.1");
    assert_eq!(client(&[("forwarded", ""), ("x-forwarded-for", real)]), "10.0.0.1");
}
