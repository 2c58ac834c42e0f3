//! Tests of the real protocols against fake gateways on addresses of loopback, each test on its own.
#![cfg(target_os = "linux")]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const OUTSIDE: [u8; 4] = [203, 0, 113, 1];

fn gateway(nat: Nat, at: Ipv4Addr, ssdp: SocketAddr) -> SystemGateway {
    SystemGateway { nat, ssdp, fixed: Some(at), found: None }
}

fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

fn request(protocol: Protocol, external: u16, any: bool) -> MapRequest {
    MapRequest { protocol, internal: 30303, external, any, lease: Duration::from_secs(600) }
}

/// What a gateway has open: protocol, inside, outside, and how often each was asked for.
type Open = Arc<Mutex<Vec<(u8, u16, u16)>>>;

/// Speaks NAT-PMP (RFC 6886): gives TCP and UDP the wished port plus 1000 at first, and what is asked for after that.
async fn serve_nat_pmp(at: Ipv4Addr, open: Open, lease: u32) {
    let socket = UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).await.expect("free");
    let mut packet = [0; 64];
    loop {
        let (len, from) = socket.recv_from(&mut packet).await.expect("reads");
        let answer = match packet[..len] {
            [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 1][..], &OUTSIDE].concat(),
            [0, opcode @ 1..=2, _, _, i0, i1, e0, e1, l0, l1, l2, l3] => {
                let (inside, wish) = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([e0, e1]));
                let mut open = open.lock().expect("not poisoned");
                let ending = [l0, l1, l2, l3] == [0; 4];
                let known = open.contains(&(opcode, inside, wish));
                let outside = if ending {
                    0
                } else if known {
                    wish
                } else {
                    wish + 1000
                };
                open.retain(|(of, at, _)| (*of, *at) != (opcode, inside));
                if !ending {
                    open.push((opcode, inside, outside));
                }
                let lease = if ending { 0 } else { lease };
                let ports = [inside.to_be_bytes(), outside.to_be_bytes()].concat();
                [&[0, 128 + opcode, 0, 0, 0, 0, 0, 1][..], &ports, &lease.to_be_bytes()].concat()
            }
            // Another version: the answer names ours.
            _ => vec![0, 128, 0, 1, 0, 0, 0, 1],
        };
        socket.send_to(&answer, from).await.expect("sent");
    }
}

#[tokio::test]
async fn nat_pmp_grants_a_port_renews_it_and_takes_it_back() {
    let (at, open) = (Ipv4Addr::new(127, 53, 51, 1), Open::default());
    let server = tokio::spawn(serve_nat_pmp(at, open.clone(), 300));
    let mut gateway = gateway(Nat::Auto, at, nobody());
    gateway.find().await.expect("it speaks NAT-PMP");
    let granted = gateway.map(request(Protocol::Tcp, 30303, true)).await.expect("granted");
    let expected = Granted { external: (OUTSIDE, 31303).into(), lease: Duration::from_secs(300) };
    assert_eq!(granted, expected, "its port and its lease, not ours");
    let again = gateway.map(request(Protocol::Tcp, 31303, false)).await.expect("granted");
    assert_eq!(again, expected);
    let udp = gateway.map(request(Protocol::Udp, 30303, true)).await.expect("granted");
    assert_eq!(udp.external.port(), 31303);
    assert_eq!(open.lock().expect("not poisoned").len(), 2);
    for protocol in Protocol::ALL {
        gateway.unmap(protocol, 30303, 31303).await.expect("given back");
    }
    assert!(open.lock().expect("not poisoned").is_empty());
    server.abort();
}

#[tokio::test]
async fn a_lease_of_no_time_is_a_refusal() {
    let at = Ipv4Addr::new(127, 53, 51, 2);
    let server = tokio::spawn(serve_nat_pmp(at, Open::default(), 0));
    let mut gateway = gateway(Nat::Pcp, at, nobody());
    gateway.find().await.expect("it speaks NAT-PMP");
    let refused = gateway.map(request(Protocol::Tcp, 30303, true)).await.expect_err("no time").to_string();
    assert!(refused.contains("grants no time"), "{refused}");
    server.abort();
}

/// Speaks PCP (RFC 6887) and not NAT-PMP; grants `lease` seconds, and the same port to the same nonce only.
async fn serve_pcp(at: Ipv4Addr, open: Open, lease: u32) {
    let socket = UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).await.expect("free");
    let mut packet = [0; 1100];
    let mut nonces: Vec<[u8; 12]> = Vec::new();
    loop {
        let (len, from) = socket.recv_from(&mut packet).await.expect("reads");
        let mut answer = packet[..len].to_vec();
        if len != 60 || packet[0] != 2 {
            socket.send_to(&[2, 128, 0, 1, 0, 0, 0, 0], from).await.expect("sent");
            continue;
        }
        let nonce: [u8; 12] = packet[24..36].try_into().expect("twelve");
        let (number, inside) = (packet[36], u16::from_be_bytes([packet[40], packet[41]]));
        let ending = packet[4..8] == [0; 4];
        // Who did not make a mapping can neither renew nor end it.
        let known = nonces.contains(&nonce);
        let outside = if known || nonces.is_empty() { 4000 + inside % 1000 } else { 9 };
        if !known {
            nonces.push(nonce);
        }
        {
            let mut open = open.lock().expect("not poisoned");
            open.retain(|(of, at, _)| (*of, *at) != (number, inside));
            if !ending {
                open.push((number, inside, outside));
            }
        }
        answer[1] = 0x81;
        answer[2..4].fill(0);
        answer[4..8].copy_from_slice(&(if ending { 0 } else { lease }).to_be_bytes());
        answer[8..24].fill(0);
        answer[42..44].copy_from_slice(&outside.to_be_bytes());
        answer[44..60].copy_from_slice(&Ipv4Addr::from(OUTSIDE).to_ipv6_mapped().octets());
        socket.send_to(&answer, from).await.expect("sent");
    }
}

#[tokio::test]
async fn pcp_is_spoken_where_the_gateway_knows_no_nat_pmp() {
    let (at, open) = (Ipv4Addr::new(127, 53, 51, 3), Open::default());
    let server = tokio::spawn(serve_pcp(at, open.clone(), 120));
    let mut gateway = gateway(Nat::Auto, at, nobody());
    gateway.find().await.expect("it speaks PCP");
    let expected = Granted { external: (OUTSIDE, 4303).into(), lease: Duration::from_secs(120) };
    for any in [true, false] {
        assert_eq!(gateway.map(request(Protocol::Udp, 30303, any)).await.expect("granted"), expected);
    }
    assert_eq!(open.lock().expect("not poisoned").clone(), [(17, 30303, 4303)]);
    gateway.unmap(Protocol::Udp, 30303, 4303).await.expect("given back");
    assert!(open.lock().expect("not poisoned").is_empty());
    server.abort();

    let at = Ipv4Addr::new(127, 53, 51, 4);
    let server = tokio::spawn(serve_pcp(at, Open::default(), 0));
    let mut gateway = self::gateway(Nat::Pcp, at, nobody());
    gateway.find().await.expect("it speaks PCP");
    for _ in 0..2 {
        gateway.map(request(Protocol::Udp, 30303, true)).await.expect_err("a lease of no time, and no panic");
    }
    server.abort();
}

const DEVICE: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
    <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>\
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL>\
    <SCPDURL>/schema</SCPDURL></service></serviceList></device></root>";

fn schema() -> String {
    let argument = |name| format!("<argument><name>{name}</name><direction>in</direction></argument>");
    let names = ["NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient", "NewLeaseDuration"];
    let arguments: String = names.into_iter().chain(["NewPortMappingDescription"]).map(argument).collect();
    let action = |name| format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>");
    let actions: String = ["AddPortMapping", "DeletePortMapping"].map(action).concat();
    format!("<?xml version=\"1.0\"?><scpd><actionList>{actions}</actionList></scpd>")
}

fn soap(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{body}\
         </s:Body></s:Envelope>"
    )
}

fn fault(code: u16) -> String {
    soap(&format!(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
    ))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map(|(value, _)| value).unwrap_or_default()
}

/// Answers SSDP and then speaks as a router's UPnP does. It knows leases for ever only; `taken` is somebody else's.
async fn serve_upnp(at: Ipv4Addr, ssdp: UdpSocket, actions: Arc<Mutex<Vec<String>>>, taken: u16) {
    let listener = TcpListener::bind((at, 0)).await.expect("free");
    let location = listener.local_addr().expect("bound");
    let searching = async {
        let mut packet = [0; 1500];
        loop {
            let (_, from) = ssdp.recv_from(&mut packet).await.expect("reads");
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{location}/device\r\n\r\n");
            ssdp.send_to(answer.as_bytes(), from).await.expect("sent");
        }
    };
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let actions = actions.clone();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                let text = loop {
                    let mut bytes = [0; 4096];
                    let len = stream.read(&mut bytes).await.unwrap_or(0);
                    asked.extend_from_slice(&bytes[..len]);
                    let text = String::from_utf8_lossy(&asked).into_owned();
                    let complete = text.contains("\r\n\r\n") && (text.starts_with("GET") || text.contains("Envelope>"));
                    if len == 0 || complete {
                        break text;
                    }
                };
                let body = if text.starts_with("GET /device") {
                    DEVICE.to_owned()
                } else if text.starts_with("GET /schema") {
                    schema()
                } else if text.contains(":GetExternalIPAddress") {
                    soap(
                        "<u:GetExternalIPAddressResponse xmlns:u=\"x\"><NewExternalIPAddress>203.0.113.1\
                         </NewExternalIPAddress></u:GetExternalIPAddressResponse>",
                    )
                } else {
                    let port = between(&text, "<NewExternalPort>", "</NewExternalPort>").to_owned();
                    let lease = between(&text, "<NewLeaseDuration>", "</NewLeaseDuration>").to_owned();
                    let description = between(&text, "<NewPortMappingDescription>", "</New").to_owned();
                    let adding = text.contains("u:AddPortMapping");
                    actions.lock().expect("not poisoned").push(format!("{adding} {port} {lease} {description}"));
                    match (adding, lease.as_str()) {
                        (true, _) if port.parse() == Ok(taken) => fault(718),
                        (true, "0") => soap("<u:AddPortMappingResponse xmlns:u=\"x\"></u:AddPortMappingResponse>"),
                        (true, _) => fault(725),
                        _ => soap("<u:DeletePortMappingResponse xmlns:u=\"x\"></u:DeletePortMappingResponse>"),
                    }
                };
                let status = if body.contains("UPnPError") { "500 Internal Server Error" } else { "200 OK" };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    };
    tokio::join!(searching, serving);
}

#[tokio::test]
async fn upnp_maps_at_a_router_that_grants_for_ever_only_and_takes_the_port_back() {
    let at = Ipv4Addr::new(127, 53, 51, 5);
    let ssdp = UdpSocket::bind((at, 0)).await.expect("free");
    let address = ssdp.local_addr().expect("bound");
    let actions = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(serve_upnp(at, ssdp, actions.clone(), 666));
    let mut gateway = gateway(Nat::Auto, at, address);
    gateway.find().await.expect("nothing at NAT-PMP's port, and UPnP");
    let granted = gateway.map(request(Protocol::Tcp, 30303, true)).await.expect("granted");
    assert_eq!(granted, Granted { external: (OUTSIDE, 30303).into(), lease: FOR_EVER });
    gateway.unmap(Protocol::Tcp, 30303, 30303).await.expect("given back");
    let actions = actions.lock().expect("not poisoned").clone();
    assert_eq!(actions, ["true 30303 600 peerage", "true 30303 0 peerage", "false 30303  "]);
    let refused = gateway.map(request(Protocol::Tcp, 666, false)).await.expect_err("somebody else's").to_string();
    assert!(refused.contains("conflicts"), "no other port is asked for on renewal: {refused}");
    server.abort();
}

#[tokio::test]
async fn a_neighbour_that_answers_in_the_gateways_place_is_not_believed() {
    let neighbour = Ipv4Addr::new(127, 53, 51, 6);
    let ssdp = UdpSocket::bind((neighbour, 0)).await.expect("free");
    let address = ssdp.local_addr().expect("bound");
    let actions = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(serve_upnp(neighbour, ssdp, actions.clone(), 666));
    let mut gateway = gateway(Nat::Upnp, Ipv4Addr::new(127, 53, 51, 7), address);
    let silent = gateway.find().await.expect_err("another address").to_string();
    assert!(silent.contains("127.53.51.7 speaks none"), "{silent}");
    assert!(actions.lock().expect("not poisoned").is_empty());
    server.abort();
}

#[tokio::test]
async fn a_gateway_without_any_of_the_protocols_is_said_to_be_silent() {
    let mut gateway = gateway(Nat::Pcp, Ipv4Addr::new(127, 53, 51, 8), nobody());
    let error = gateway.find().await.expect_err("nobody there").to_string();
    assert!(error.contains("speaks none"), "{error}");
    assert!(matches!(gateway.map(request(Protocol::Tcp, 1, true)).await, Err(GatewayError::None)));
}
