package config

import (
	"slices"
	"time"
)

// Bounds of lists, in elements.
const (
	trunksMax   = 1000
	peersMax    = 1000
	nextHopsMax = 16
	listenMax   = 16

	interfacesMax        = 64
	captureInterfacesMax = 16
	cpusMax              = 1024
)

// table is the whole contract of the configuration file, bound to c.
func table(c *Config) *node {
	return object(
		sipTable(&c.SIP),
		mediaTable(&c.Media),
		key("trunks", "The trunks: each relays calls between its external side (the carrier) and its internal side (the PBX).",
			list(&c.Trunks, 1, trunksMax, trunkTable)).must().unless("siprec"),
		stationsTable(c),
		key("station_base", "What stations do not say themselves.", stationRecordingTable(&c.StationBase, true)),
		key("stations_from", "What begins the recording of a station: legs, the calls of a trunk with the role phones; state, the signal agent.join of a call on the trunk. auto: legs when there is a trunk with that role.",
			choice(&c.StationsFrom, []string{"auto", "legs", "state"}, nil)).is("auto"),
		siprecTable(&c.SIPREC),
		captureTable(&c.Capture),
		recordingTable(&c.Recording),
		signalsTable(&c.Signals),
		storageTable(&c.Storage),
		retentionTable(&c.Retention),
		catalogTable(&c.Catalog),
		keysTable(&c.Keys),
		auditTable(&c.Audit),
		apiTable(&c.API),
		key("limits", "Bounds of the daemon.", object(append([]*node{
			key("calls_max", "Concurrent calls; more are refused. Every call takes four media ports. Without the key: 2000, or as many as the ports allow.",
				integer(&c.Limits.CallsMax, 1, 100_000)).shown("2000").lively().atStart(),
		}, overload(&c.Limits)...)...)),
		restartTable(&c.Restart),
		key("shutdown", "How the daemon stops. See docs/restart.md.", object(
			key("drain", "How long it refuses new calls and waits for the others to end, before it ends them; 0s: it ends them at once.",
				duration(&c.Shutdown.Drain, 0, 24*time.Hour)).is("0s"),
		)),
		key("log", "What is logged to standard error.", object(
			key("level", "The least severe message that is logged.",
				choice(&c.Log.Level, []string{"debug", "info", "warn", "error"}, nil)).is("info"),
			key("format", "Lines for people or JSON for machines.", choice(&c.Log.Format, []string{"text", "json"}, nil)).is("text"),
		)).atStart(),
		key("pprof", "Profiles of the running daemon (net/http/pprof).", object(
			key("listen", "Where they are served, without a token and therefore on a loopback address only.",
				httpListener(&c.PProf.Listen, true)).is("none"),
		)).atStart(),
	)
}

func sipTable(c *SIP) *node {
	return key("sip", "Where and as what SIP is spoken.", object(append([]*node{
		key("listen", "The sockets that SIP is taken from and sent by.", list(&c.Listen, 1, listenMax, sipListener)).
			is(`["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060"]`),
		key("address", "The address given in Via and Contact. Without the key: the local address towards the peer.",
			mediaAddress(&c.Address)).shown("203.0.113.10"),
	}, sipTransport(c)...)...)).atStart()
}

func mediaTable(c *Media) *node {
	return key("media", "How RTP is relayed.", object(
		key("address", "The address advertised in SDP; per trunk and side by media_address. Without the key: the local address towards the peer.",
			mediaAddress(&c.Address)).shown("203.0.113.10"),
		key("ports", "The UDP ports of the relay.", ports(&c.Ports)).is("20000-29999").atStart(),
		key("engine", "What moves the packets. kernel: an eBPF program, which needs Linux 5.15, CAP_BPF and CAP_NET_ADMIN. user: sockets alone. auto: kernel where it can be had, else user; the log says which and why.",
			choice(&c.Engine, []string{"auto", "kernel", "user"}, nil)).is("auto").atStart(),
		kernelTable(&c.Kernel),
		key("coalesce_max", "How long the user engine lets packets gather when many come, so that one look finds several: at most so much is added to their delay, and with less than some 20 calls nothing. 0s: never.",
			duration(&c.CoalesceMax, 0, 10*time.Millisecond)).is("1ms").atStart(),
		key("cpus", "The CPUs that the user engine works on, one loop bound to each. Without the key: a loop per CPU, bound to none.",
			list(&c.CPUs, 1, cpusMax, func(cpu *int) *node { return integer(cpu, 0, cpusMax-1) })).shown("[0, 1]").atStart(),
		key("quarantine", "How long a port rests after its call, so that late packets reach no other call.",
			duration(&c.Quarantine, 0, 10*time.Minute)).is("30s").atStart(),
		key("timeout", "A call of which no side has sent a packet for so long is ended, unless it is on hold; 0s: never.",
			duration(&c.Timeout, 0, 24*time.Hour)).is("5m").atStart(),
	))
}

func kernelTable(k *Kernel) *node {
	return key("kernel", "What the kernel engine does. Its packets pass firewall rules by: see docs/kernel-engine.md.", object(
		key("interfaces", "Where media arrives, lo included when parties run on this machine. Without the key: lo and everything that speaks Ethernet, also what comes later.",
			list(&k.Interfaces, 1, interfacesMax, interfaceName)).shown("[eth0]"),
		key("ring_size", "The room for what was forwarded and waits to be recorded. A call of G.711 needs 21 kB for each second that it shall bridge.",
			size(&k.RingSize, "64KiB", "1GiB")).is("32MiB"),
		key("pin", "A directory in a BPF file system. What is in it outlives the daemon, so that calls go on without it; a directory that cannot be had is told in the log.",
			path(&k.Pin)).is("/sys/fs/bpf/trunktap"),
	)).atStart()
}

func trunkTable(t *Trunk) *node {
	head := []*node{
		key("name", "Its name in recordings, listings and metrics.", name(&t.Name)).must().shown("carrier-a"),
		key("role", "trunk: between the carrier and the PBX. phones: between the PBX (external) and its phones (internal); there stations and consultations are recorded, never the trunk.",
			choice(&t.Role, []string{"trunk", "phones"}, nil)).is("trunk"),
		sideTable("external", "The side of the carrier: channel 0 of recordings.", &t.External, "[198.51.100.0/24]",
			`["sip:198.51.100.10:5060;transport=udp"]`).must(),
		sideTable("internal", "The side of the PBX: channel 1 of recordings.", &t.Internal, "[10.0.0.5/32]", `["sip:10.0.0.5:5060"]`).must(),
	}
	tail := []*node{
		key("media_address", "The address advertised in SDP to both sides. Without the key: media.address.",
			mediaAddress(&t.MediaAddress)).shown("203.0.113.10"),
		key("registrations", "What becomes of phones that register on the external side. contact: calls for them come to us by a Contact of ours. path: by a Path (RFC 3327), where the registrar supports it. pass: they are called directly, past us. With contact and path the internal side needs no next_hops.",
			choice(&t.Registrations, []string{"pass", "contact", "path"}, nil)).is("pass"),
		key("passive", "Whether its calls do not go through the daemon: they are listened to at the interfaces of capture. Its sides need peers and no next_hops.",
			boolean(&t.Passive)).is("false"),
		key("srtp_pass", "Whether two sides that both do SRTP by SDES keep their keys: packets pass as they are, and are decrypted for the recording alone.",
			boolean(&t.SRTPPass)).is("false"),
		trunkRecordingTable(&t.Recording),
	}
	return object(slices.Concat(head, passingFields(&t.Passing), tail, trunkReach(t))...)
}

func sideTable(name, doc string, s *Side, peersShown, hopsShown string) *node {
	return key(name, doc, object(append([]*node{
		key("peers", "Who may send to this trunk from this side. Without the key: the next hops, when all of them are addresses.",
			list(&s.Peers, 1, peersMax, peer)).shown(peersShown).lively(),
		key("next_hops", "Where calls to this side go: the first, and the next one when it does not answer or says 503. {uri: …, priority: 1, weight: 2} in the place of a URI shares calls out; see docs/trunks.md.",
			list(&s.NextHops, 1, nextHopsMax, hopTable)).shown(hopsShown).lively(),
		key("media_address", "The address advertised in SDP to this side. Without the key: that of the trunk.",
			mediaAddress(&s.MediaAddress)).shown("203.0.113.10"),
		key("sip_address", "The address given in Via and Contact to this side. Without the key: sip.address when it is of the family of the media address, else the local address towards the peer.",
			mediaAddress(&s.SIPAddress)).shown("203.0.113.10"),
		key("ice", "What peers of this side that speak ICE (RFC 8445) get. strip: nothing of it, so that they use the addresses of the SDP. lite: an agent with one candidate, which answers their checks.",
			choice(&s.ICE, []string{"strip", "lite"}, nil)).is("strip"),
		key("srtp", "Whether the audio of this side is protected (RFC 3711). optional: where the side can. required: else calls are refused. off on both sides: what the parties agree on passes untouched; off on one: that side has plain RTP alone. See docs/srtp.md.",
			choice(&s.SRTP, []string{"off", "optional", "required"}, nil)).is("off"),
		key("srtp_method", "How keys are agreed on where this side leaves the choice: sdes (RFC 4568), in the SDP, or dtls (RFC 5763).",
			choice(&s.SRTPMethod, []string{"sdes", "dtls"}, nil)).is("sdes"),
		key("srtp_suites", "The suites allowed, by preference; those with 256 bits and SHA1 are of sdes alone. Without the key: all.",
			list(&s.SRTPSuites, 1, len(srtpSuites), srtpSuite)).shown("[AEAD_AES_256_GCM, AES_CM_128_HMAC_SHA1_80]"),
	}, sideReach(s)...)...))
}

func captureTable(c *Capture) *node {
	return key("capture", "Where the calls of passive trunks are listened to, as a last resort: what the link loses is lost. See docs/passive.md.", object(
		key("interfaces", "Interfaces that SIP and media pass, such as the one at a mirror port of a switch. CAP_NET_RAW is needed.",
			list(&c.Interfaces, 1, captureInterfacesMax, interfaceName)).shown("[eth1]"),
		key("promiscuous", "Whether frames for other hosts are taken too, as a mirror port sends them.", boolean(&c.Promiscuous)).is("true"),
		key("ring_size", "The room for frames that wait to be read.", size(&c.RingSize, "2MiB", "1GiB")).is("64MiB"),
	)).atStart()
}

// srtpSuites are the names in SDP (RFC 4568, RFC 6188, RFC 7714).
var srtpSuites = []string{
	"AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_256_CM_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_80",
	"AES_256_CM_HMAC_SHA1_32", "AES_CM_128_HMAC_SHA1_32",
}

func srtpSuite(target *string) *node { return choice(target, srtpSuites, nil) }

func recordingTable(r *Recording) *node {
	return key("recording", "What all recordings share.", object(
		key("segment_max", "A new file is begun after so much audio.", duration(&r.SegmentMax, time.Second, time.Hour)).is("5m"),
		key("lookback", "How long audio is held back in memory, so that a late signal can still cut it out.",
			duration(&r.Lookback, 0, 5*time.Second)).is("500ms"),
		key("write_budget", "How much of a call may wait for a slow disk before audio is given up.",
			size(&r.WriteBudget, "64KiB", "1GiB")).is("4MiB").atStart(),
		key("write_budget_total", "The same for all calls together.", size(&r.WriteBudgetTotal, "1MiB", "64GiB")).is("1GiB").atStart(),
		key("sync_period", "What all calls wrote becomes durable together once in it; 0s: every half second of every call for itself, which costs a core at a few thousand calls.",
			duration(&r.SyncPeriod, 0, time.Second)).is("250ms").atStart(),
		key("deferred", "What waits to be coded after its call, on trunks with encode: deferred. What has no room stays as it is.", object(
			key("recordings_max", "Recordings that may wait.", integer(&r.Deferred.RecordingsMax, 1, 1_000_000)).is("10000"),
			key("bytes_max", "What they may hold.", size(&r.Deferred.BytesMax, "1MiB", "1024TiB")).is("64GiB"),
			key("workers", "Recordings coded at once, at the least priority.", integer(&r.Deferred.Workers, 1, 64)).is("1"),
		)).atStart(),
	))
}

func apiTable(a *API) *node {
	return key("api", "The HTTP interface.", object(
		key("listen", "Where it is served. Without TLS: put a proxy before it when it leaves the machine.",
			httpListener(&a.Listen, false)).is("127.0.0.1:8080"),
		key("token_file", "One line, the bearer token; made at the first start. Without the key: api-token beside the catalogue.", path(&a.TokenFile)).
			shown("/etc/trunktap/token"),
		key("subscribers_max", "Concurrent subscribers of the event stream.", integer(&a.SubscribersMax, 1, 10_000)).is("64"),
	)).atStart()
}
