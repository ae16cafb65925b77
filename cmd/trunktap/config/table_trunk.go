package config

// sipTransport are the keys of sip that transports heed.
func sipTransport(c *SIP) []*node {
	return []*node{
		key("tls", "SIP over TLS and secure WebSocket. On SIGHUP the files are read again.", object(
			key("cert", "The certificate, with those between it and its authority (PEM).", path(&c.TLS.Cert)).shown("/etc/trunktap/sip.pem").lively(),
			key("key", "Its key (PEM).", path(&c.TLS.Key)).shown("/etc/trunktap/sip.key").lively(),
			key("client_ca", "Who signs the certificates of peers (PEM): whoever connects must show one. Without the key: nobody need.",
				path(&c.TLS.ClientCA)).shown("/etc/trunktap/carriers.pem").lively(),
		)).apart(),
		key("keep_alive", "How long a connection of TCP, TLS or WebSocket may be silent before something is sent on it; 0s: for ever.",
			duration(&c.KeepAlive, 0, keepAliveMost)).is("30s"),
		key("udp_bytes_max", "Larger requests go over TCP, where the peer takes that and sip.listen has it (RFC 3261 section 18.1.1), else over UDP in fragments; 0: always UDP.",
			oneOr0(&c.UDPBytesMax, udpBytesLeast, udpBytesMost)).is("1300"),
	}
}

func sideTLSTable(t *SideTLS) *node {
	return key("tls", "TLS with this side.", object(
		key("cert", "The certificate shown to next hops (PEM). Without the key: that of sip.tls.", path(&t.Cert)).shown("/etc/trunktap/carrier-a.pem").lively(),
		key("key", "Its key (PEM).", path(&t.Key)).shown("/etc/trunktap/carrier-a.key").lively(),
		key("ca", "Who signs the certificates of next hops (PEM). Without the key: whom the system trusts.", path(&t.CA)).shown("/etc/trunktap/carrier-a-ca.pem").lively(),
		key("peer_name", "The name in the certificate of next hops, and of whoever connects from this side, which needs sip.tls.client_ca. Without the key: the host of the next hop, and any.",
			peerName(&t.PeerName)).shown("sbc.example.net").lively(),
	)).apart()
}
