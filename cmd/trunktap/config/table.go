package config

import "time"

// Bounds of lists, in elements.
const (
	trunksMax   = 1000
	peersMax    = 1000
	nextHopsMax = 16
	listenMax   = 16
)

// table is the whole contract of the configuration file, bound to c.
func table(c *Config) *node {
	return object(
		sipTable(&c.SIP),
		mediaTable(&c.Media),
		key("trunks", "The trunks: each relays calls between its external side (the carrier) and its internal side (the PBX).",
			list(&c.Trunks, 1, trunksMax, trunkTable)).must(),
		off("stations", "Users whose own phone legs are recorded."),
		key("siprec", "Recording sessions taken by SIPREC (RFC 7866).", object(
			off("listen", "Where SIPREC is taken."),
			off("sources", "Who may send recording sessions."),
		)),
		recordingTable(&c.Recording),
		signalsTable(&c.Signals),
		storageTable(&c.Storage),
		key("catalog", "Where the list of recordings lies. It can be rebuilt from the storage.", object(
			key("url", "Its URL.", localURL(&c.Catalog.URL, &c.Catalog.Path, "sqlite", "sqlite:///var/lib/trunktap/catalog.db", []string{"postgres", "postgresql"})).
				is("sqlite:///var/lib/trunktap/catalog.db"),
		)).atStart(),
		keysTable(&c.Keys),
		apiTable(&c.API),
		key("limits", "Bounds of the daemon.", object(
			key("calls_max", "Concurrent calls; more are refused. Every call takes four media ports. Without the key: 2000, or as many as the ports allow.",
				integer(&c.Limits.CallsMax, 1, 100_000)).shown("2000").lively().atStart(),
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
	return key("sip", "Where and as what SIP is spoken.", object(
		key("listen", "The sockets that SIP is taken from and sent by.", list(&c.Listen, 1, listenMax, sipListener)).
			is(`["udp://0.0.0.0:5060", "tcp://0.0.0.0:5060"]`),
		key("address", "The address given in Via and Contact. Without the key: the local address towards the peer.",
			mediaAddress(&c.Address)).shown("203.0.113.10"),
		key("tls", "SIP over TLS.", object(
			off("cert", "The certificate."),
			off("key", "Its key."),
			off("client_ca", "Who signs the certificates of peers."),
		)),
	)).atStart()
}

func mediaTable(c *Media) *node {
	return key("media", "How RTP is relayed.", object(
		key("address", "The address advertised in SDP; per trunk and side by media_address. Without the key: the local address towards the peer.",
			mediaAddress(&c.Address)).shown("203.0.113.10"),
		key("ports", "The UDP ports of the relay.", ports(&c.Ports)).is("20000-29999").atStart(),
		key("engine", "What moves the packets. auto takes the best that the machine has.",
			choice(&c.Engine, []string{"auto", "user"}, []string{"kernel"})).is("auto").atStart(),
		key("quarantine", "How long a port rests after its call, so that late packets reach no other call.",
			duration(&c.Quarantine, 0, 10*time.Minute)).is("30s").atStart(),
		key("timeout", "A call of which no side has sent a packet for so long is ended, unless it is on hold; 0s: never.",
			duration(&c.Timeout, 0, 24*time.Hour)).is("5m").atStart(),
	))
}

func trunkTable(t *Trunk) *node {
	return object(
		key("name", "Its name in recordings, listings and metrics.", name(&t.Name)).must().shown("carrier-a"),
		sideTable("external", "The side of the carrier: channel 0 of recordings.", &t.External, "[198.51.100.0/24]",
			`["sip:198.51.100.10:5060;transport=udp"]`).must(),
		sideTable("internal", "The side of the PBX: channel 1 of recordings.", &t.Internal, "[10.0.0.5/32]", `["sip:10.0.0.5:5060"]`).must(),
		key("identity", "transparent keeps Call-ID, tags and CSeq across the trunk.",
			choice(&t.Identity, []string{"transparent"}, []string{"hide"})).is("transparent"),
		key("media_address", "The address advertised in SDP to both sides. Without the key: media.address.",
			mediaAddress(&t.MediaAddress)).shown("203.0.113.10"),
		trunkRecordingTable(&t.Recording),
	)
}

func sideTable(name, doc string, s *Side, peersShown, hopsShown string) *node {
	return key(name, doc, object(
		key("peers", "Who may send to this trunk from this side. Without the key: the next hops, when all of them are addresses.",
			list(&s.Peers, 1, peersMax, peer)).shown(peersShown).lively(),
		key("next_hops", "Where calls to this side go: the first, and the next one when it does not answer.",
			list(&s.NextHops, 1, nextHopsMax, nextHop)).must().shown(hopsShown),
		key("media_address", "The address advertised in SDP to this side. Without the key: that of the trunk.",
			mediaAddress(&s.MediaAddress)).shown("203.0.113.10"),
	))
}

func trunkRecordingTable(r *TrunkRecording) *node {
	return key("recording", "What is recorded of the trunk's calls.", object(
		key("enabled", "Whether calls are recorded at all.", boolean(&r.Enabled)).is("true"),
		key("on_failure", "What a call gets when it cannot be recorded: allow lets it through, refuse answers 503.",
			choice(&r.OnFailure, []string{"allow", "refuse"}, nil)).is("allow"),
		key("format", "The format of the audio.",
			choice(&r.Format, []string{"ogg-opus", "wav-pcm16", "wav-pcmu", "wav-pcma"}, []string{"flac"})).is("ogg-opus"),
		key("dual_channel", "Each side on its own channel; false mixes them into one.", boolean(&r.DualChannel)).is("true"),
		key("early_media", "Record what is heard before the answer.", boolean(&r.EarlyMedia)).is("false"),
		key("consent", "required: nothing is recorded before the signal consent.granted.",
			choice(&r.Consent, []string{"off", "required"}, nil)).is("off"),
		key("suppress", "The states of a call that are not recorded. A secure pause never is.", object(
			key("ivr", "The caller talks to a menu.", boolean(&r.Suppress.IVR)).is("true"),
			key("queue", "The caller waits for an agent.", boolean(&r.Suppress.Queue)).is("true"),
			key("hold", "A party is on hold.", boolean(&r.Suppress.Hold)).is("true"),
		)),
		key("suppressed", "cut takes suppressed spans out of the audio, silence leaves digital silence.",
			choice(&r.Suppressed, []string{"cut", "silence"}, nil)).is("cut"),
		key("external_transfer", "Whether recording goes on after a transfer to an outside party.",
			choice(&r.ExternalTransfer, []string{"stop", "continue"}, nil)).is("stop"),
		off("consult", "Record consultations between agents."),
		key("beep", "A tone that tells the parties of the recording.", object(
			off("enabled", "Whether it is heard."),
			key("frequency", "In Hz.", integer(new(int), 300, 3400)).is("1400"),
			key("duration", "Of one tone.", duration(new(time.Duration), 10*time.Millisecond, 5*time.Second)).is("200ms"),
			key("interval", "Between tones.", duration(new(time.Duration), time.Second, time.Hour)).is("14s"),
			key("level", "In dB of full scale.", integer(new(int), -60, 0)).is("-24"),
		)),
	))
}

func recordingTable(r *Recording) *node {
	return key("recording", "What all recordings share.", object(
		key("segment_max", "A new file is begun after so much audio.", duration(&r.SegmentMax, time.Second, time.Hour)).is("5m"),
		key("lookback", "How long audio is held back in memory, so that a late signal can still cut it out.",
			duration(&r.Lookback, 0, 5*time.Second)).is("500ms"),
		key("write_budget", "How much of a call may wait for a slow disk before audio is given up.",
			size(&r.WriteBudget, "64KiB", "1GiB")).is("4MiB").atStart(),
	))
}

func signalsTable(s *Signals) *node {
	return key("signals", "Where call-state signals come from, beside the SDP of the call itself.", object(
		key("http", "POST /v1/calls/{call}/signals.", boolean(&s.HTTP)).is("true"),
		off("headers", "SIP header fields."),
		off("ami", "Asterisk's manager interface."),
		off("esl", "FreeSWITCH's event socket."),
		off("nats", "NATS subjects."),
		key("dtmf", "Codes typed by the agent.", object(
			off("pause", "The code that begins a secure pause."),
			off("resume", "The code that ends it."),
			off("from", "Who may type them."),
		)),
	))
}

func storageTable(s *Storage) *node {
	return key("storage", "Where recordings lie.", object(
		key("url", "Its URL.", localURL(&s.URL, &s.Dir, "file", "file:///var/lib/trunktap/recordings", []string{"s3", "gs", "azblob"})).
			is("file:///var/lib/trunktap/recordings"),
		key("spool", "Local directory of what is being written. Without the key: spool beside the catalogue.", path(&s.Spool)).
			shown("/var/lib/trunktap/spool"),
	)).atStart()
}

func keysTable(k *Keys) *node {
	return key("keys", "Where the keys come from that recordings are sealed with.", object(
		key("mode", "The kind of key source.",
			choice(&k.Mode, []string{"local"}, []string{"aws-kms", "gcp-kms", "azure", "vault", "pkcs11", "remote", "none"})).is("local"),
		key("file", "The keys of mode local; made at the first start. Without the key: keys.json beside the catalogue.", path(&k.File)).
			shown("/var/lib/trunktap/keys.json"),
	)).atStart()
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
