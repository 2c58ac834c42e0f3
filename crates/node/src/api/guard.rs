//! Who may ask: programs on this machine, and no page that a browser on it happens to show.
//!
//! Three things stop a page. Its name may be made to resolve to 127.0.0.1 (DNS rebinding), but then the
//! `Host` header holds that name. It may send requests to the real address, but then the browser says whose
//! they are, in `Origin` or `Sec-Fetch-Site`. And it cannot read any answer, as none says that it may (CORS).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;

/// What the guard compares with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    /// The port that is served.
    pub(crate) port: u16,
}

/// Lets a request pass, or refuses it.
pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.verdict(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(sentence) => ApiError::new(StatusCode::FORBIDDEN, sentence).into_response(),
    };
    let headers = response.headers_mut();
    // No browser shall guess a type, keep an answer, embed one, or run what is in one.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

impl Guard {
    fn verdict(self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        const HOST: &str = "the Host header must be this address itself, like 127.0.0.1 or localhost with its port";
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
            (Some(host), None) => host,
            _ => return Err(HOST),
        };
        let named = uri.authority().into_iter().all(|authority| self.is_own(authority));
        if !named || !host.parse().is_ok_and(|authority| self.is_own(&authority)) {
            return Err(HOST);
        }
        let own = format!("http://{host}");
        if headers.get_all(header::ORIGIN).iter().any(|origin| origin.as_bytes() != own.as_bytes()) {
            return Err("web pages may not use this API (the Origin header names one)");
        }
        let sites = headers.get_all("sec-fetch-site");
        if sites.iter().any(|site| site != "same-origin" && site != "none") {
            return Err("web pages may not use this API (the Sec-Fetch-Site header tells of one)");
        }
        Ok(())
    }

    fn is_own(self, authority: &Authority) -> bool {
        let host = authority.host();
        let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse::<IpAddr>();
        let loopback = host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback());
        loopback && authority.port_u16().unwrap_or(80) == self.port && !authority.as_str().contains('@')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(headers: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        Guard { port: 30380 }.verdict(&Uri::from_static("/v1/node"), &map)
    }

    #[test]
    fn a_host_that_is_not_this_one_is_refused_as_dns_rebinding_would_have_it() {
        for host in ["127.0.0.1:30380", "localhost:30380", "LocalHost:30380", "[::1]:30380", "127.9.9.9:30380"] {
            assert!(verdict(&[("host", host)]).is_ok(), "{host}");
        }
        let refused = [
            "evil.example:30380",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost",
            "localhost.evil.example:30380",
            "127.0.0.1.evil.example:30380",
            "192.0.2.1:30380",
            "0.0.0.0:30380",
            "evil@127.0.0.1:30380",
            "",
        ];
        for host in refused {
            assert!(verdict(&[("host", host)]).is_err(), "{host}");
        }
        assert!(verdict(&[]).is_err(), "no Host header");
        assert!(verdict(&[("host", "127.0.0.1:30380"), ("host", "evil.example")]).is_err(), "two of them");
    }

    #[test]
    fn a_target_in_the_request_line_counts_as_a_host() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:30380"));
        let guard = Guard { port: 30380 };
        assert!(guard.verdict(&Uri::from_static("http://evil.example:30380/v1/node"), &headers).is_err());
        assert!(guard.verdict(&Uri::from_static("http://127.0.0.1:30380/v1/node"), &headers).is_ok());
    }

    #[test]
    fn the_default_port_need_not_be_said() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        assert!(Guard { port: 80 }.verdict(&Uri::from_static("/"), &headers).is_ok());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:30380");
        assert!(verdict(&[host, ("origin", "http://127.0.0.1:30380")]).is_ok());
        for origin in ["null", "https://evil.example", "http://127.0.0.1:8080", "http://localhost:30380", ""] {
            assert!(verdict(&[host, ("origin", origin)]).is_err(), "{origin}");
        }
        for site in ["cross-site", "same-site", "else"] {
            assert!(verdict(&[host, ("sec-fetch-site", site)]).is_err(), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert!(verdict(&[host, ("sec-fetch-site", site)]).is_ok(), "{site}");
        }
    }
}
