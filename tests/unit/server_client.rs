use super::*;
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
