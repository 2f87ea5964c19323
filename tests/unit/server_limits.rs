use crate::server::limits::*;

#[test]
fn one_ipv6_network_is_one_client() {
    let [a, b] = ["2001:db8::1", "2001:db8::ffff:2"].map(|text| network(text.parse().unwrap()));
    assert_eq!(a, b);
    assert_ne!(a, network("2001:db8:0:1::1".parse().unwrap()));
}
