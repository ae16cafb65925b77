package config

import "time"

// sipTransport are the keys of sip that transports heed.
func sipTransport(c *SIP) []*node {
	return []*node{
		key("tls", "SIP over TLS and secure WebSocket. On SIGHUP the files are read again.", object(
			key("cert", "The certificate, with those between it and its authority (PEM).", path(&c.TLS.Cert)).shown("/etc/trunktap/sip.pem").lively(),
			key("key", "Its key (PEM).", path(&c.TLS.Key)).shown("/etc/trunktap/sip.key").lively(),
			key("client_ca", "Who signs the certificates of peers (PEM): whoever connects must show one. Without the key: nobody need.",
				path(&c.TLS.ClientCA)).shown("/etc/trunktap/carriers.pem").lively(),
		)).apart(),
		key("dns", "How the names of next hops are found: NAPTR, SRV and addresses (RFC 3263).", object(
			key("servers", "Whom to ask, in turn. Without the key: those of /etc/resolv.conf.", list(&c.DNS, 1, dnsServersMax, dnsServer)).shown("[192.0.2.53]").lively(),
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

// hopTable is a next hop: its URI, or a mapping with what else is said of it.
func hopTable(h *NextHop) *node {
	return shortly("uri",
		key("uri", "Where it is.", hopURI(h)).must().shown(`"sip:192.0.2.9:5060"`),
		key("priority", "Those of the lowest priority are tried first. Without the key: the place in the list, from 1.", integer(&h.Priority, 1, weightMost)).shown("1"),
		key("weight", "Its share among those of one priority.", integer(&h.Weight, 1, weightMost)).is("1"),
	)
}

// hopURI is the part of a next hop that is its URI.
func hopURI(h *NextHop) *node {
	v := &NextHop{}
	n := nextHop(v)
	parse := n.set
	n.set = func(s scalar) *wrong {
		w := parse(s)
		if w == nil {
			h.Host, h.Port, h.Transport = v.Host, v.Port, v.Transport
		}
		return w
	}
	return n
}

// sideReach are the keys of a side about its next hops.
func sideReach(s *Side) []*node {
	return []*node{
		key("ping", "How the next hops are asked whether they are there (OPTIONS). Those that are down get no calls while another is up.", object(
			key("interval", "Between two pings; 0s: none.", zeroOr(&s.Ping.Interval, pingIntervalLeast, pingIntervalMost)).is("0s"),
			key("timeout", "Without any answer for so long a ping has failed.", duration(&s.Ping.Timeout, 100*time.Millisecond, time.Minute)).is("4s"),
			key("down_after", "Failures in a row after which a next hop is down; a call that is not answered is one, too.", integer(&s.Ping.DownAfter, 1, 100)).is("3"),
			key("up_after", "Answers in a row after which it is up again.", integer(&s.Ping.UpAfter, 1, 100)).is("2"),
		)),
		key("redirect_hosts", "Hosts that a redirection may lead to on this side, with redirect: follow; peers and next hops may anyway. Without the key: no other.",
			list(&s.RedirectHosts, 1, redirectHostsMax, hostPattern)).shown(`["*.pbx.example.net"]`),
		sideTLSTable(&s.TLS),
		key("auth", "The user that this side knows us as: its challenges (401, 407) are answered. Without the key: they pass to the caller.", object(
			key("username", "Its name.", text(&s.Auth.Username)).must().shown("trunk-4711").lively(),
			key("password_file", "A file of one line, its password. On SIGHUP it is read again.", path(&s.Auth.PasswordFile)).must().shown("/etc/trunktap/carrier-a.password").lively(),
			key("realm", "The realm of the challenges that are answered. Without the key: any.", text(&s.Auth.Realm)).shown("sip.example.net").lively(),
		)).apart(),
		key("challenge", "Whether callers of this side must show the credentials of auth, which needs a realm.", boolean(&s.Challenge)).is("false"),
		key("register", "A binding at a registrar of this side, made with auth and kept up.", object(
			key("server", "The registrar, as a next hop.", hopURI(&s.Register.Server)).must().shown(`"sip:sip.example.net:5060"`).lively(),
			key("contact", "The user part of the address that is registered. Without the key: that of auth.", text(&s.Register.Contact)).shown(`"4711"`).lively(),
			key("expires", "How long a binding shall last.", duration(&s.Register.Expires, time.Minute, 24*time.Hour)).is("1h"),
		)).apart(),
	}
}

// trunkReach are the keys of a trunk about where calls go, and how many.
func trunkReach(t *Trunk) []*node {
	return []*node{
		key("redirect", "What becomes of a redirection (3xx): pass hands it to the caller, follow tries its targets, those in reach.",
			choice(&t.Redirect, []string{"pass", "follow"}, nil)).is("pass"),
		key("limits", "Bounds of this trunk, 0: none. What is beyond them is answered with 503 and Retry-After.", object(
			key("calls_max", "Concurrent calls.", integer(&t.Limits.CallsMax, 0, callsMost)).is("0"),
			key("calls_per_second_max", "Calls begun in a second.", integer(&t.Limits.CallsPerSecondMax, 0, perSecondMost)).is("0"),
			key("in_dialog_per_second_max", "Requests inside of calls in a second, but for BYE and PRACK, which pass always.", integer(&t.Limits.InDialogPerSecondMax, 0, perSecondMost)).is("0"),
		)),
	}
}

// overload are the keys of limits that shed new calls.
func overload(l *Limits) []*node {
	return []*node{
		key("delay_max", "When messages wait longer than this for their turn, new calls are refused with 503 until they do not; 0s: never.",
			duration(&l.DelayMax, 0, time.Minute)).is("1s").atStart(),
		key("memory_max", "When the daemon holds more than this, new calls are refused with 503. Without the key: never.",
			size(&l.MemoryMax, "64MiB", "1024GiB")).shown("4GiB").atStart(),
		key("answers_max", "How much is kept of requests that were refused, for their repetitions. What is beyond that is forgotten, the oldest first.",
			size(&l.AnswersMax, "1MiB", "4GiB")).is("32MiB").atStart(),
	}
}
