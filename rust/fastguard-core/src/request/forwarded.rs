//! Whose address a request has (decision 14).

use std::net::IpAddr;

use super::headers::{Header, Headers};
use crate::config::Network;
use crate::denial::Denial;

/// The client's address: the peer's own, unless the peer is a declared proxy. Then `X-Forwarded-For` is read from its end,
/// declared proxies passed over; the first other address is the client's, and what stands before it is the client's word.
pub(super) fn client_address(
    peer: Option<IpAddr>,
    headers: &Headers,
    proxies: &[Network],
) -> Result<Option<IpAddr>, Denial> {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let Some(direct) = peer.filter(|address| is_proxy(*address)) else { return Ok(peer) };
    if headers.is_repeated(Header::XForwardedFor) {
        return Err(Denial::HeaderDuplicated { header: Header::XForwardedFor.name() });
    }
    let Some(list) = headers.text(Header::XForwardedFor)? else { return Ok(Some(direct)) };
    let mut nearest = direct;
    for element in list.rsplit(',') {
        let invalid = Denial::HeaderInvalid { header: Header::XForwardedFor.name() };
        let address: IpAddr = element.trim().parse().map_err(|_| invalid)?;
        nearest = address;
        if !is_proxy(address) {
            break;
        }
    }
    Ok(Some(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, list: &str, proxies: &[&str]) -> Result<Option<IpAddr>, Denial> {
        let mut headers = Headers::default();
        headers.push(b"x-forwarded-for", list.as_bytes());
        let proxies: Vec<Network> = proxies.iter().map(|network| network.parse().unwrap()).collect();
        client_address(Some(peer.parse().unwrap()), &headers, &proxies)
    }

    fn some(address: &str) -> Option<IpAddr> {
        address.parse().ok()
    }

    #[test]
    fn header_of_an_undeclared_peer_is_not_believed() {
        assert_eq!(address("192.0.2.1", "198.51.100.7", &["10.0.0.0/8"]), Ok(some("192.0.2.1")));
    }

    #[test]
    fn first_undeclared_address_from_the_end_is_the_client() {
        assert_eq!(
            address("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2", &["10.0.0.0/8"]),
            Ok(some("198.51.100.7"))
        );
    }

    #[test]
    fn list_of_a_proxy_that_cannot_be_read_is_refused() {
        let refused = Err(Denial::HeaderInvalid { header: "x-forwarded-for" });
        assert_eq!(address("10.0.0.1", "unknown", &["10.0.0.0/8"]), refused);
    }
}
