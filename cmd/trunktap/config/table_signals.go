package config

import "time"

// Bounds of lists, in elements.
const (
	signalRulesMax = 256 // of headers, and as many of user_to_user
	headerNamesMax = 16
	infoTypesMax   = 16
	feedsMax       = 16 // sources of one kind, servers of a source
	channelsMax    = 256
	variablesMax   = 16
	feedUsersMax   = 100_000
)

var (
	events = []string{
		"ivr.start", "ivr.end", "queue.start", "queue.end", "agent.join", "agent.leave", "hold.start", "hold.end",
		"pause.start", "pause.end", "consent.granted", "consent.denied", "consult.start", "consult.end",
		"transfer.external", "transfer.internal", "snippet.start", "snippet.end", "adhoc.start", "adhoc.end",
		"dtmf.start", "dtmf.end",
	}
	roles = []string{"agent", "consult", "monitor", "coach", "barge"}
)

func signalsTable(s *Signals) *node {
	return key("signals", "Where call-state signals come from, beside the SDP of the call itself.", object(
		key("http", "POST /v1/calls/{call}/signals.", boolean(&s.HTTP)).is("true"),
		key("headers", "Signals made of SIP header fields in INVITE and UPDATE, the first of a call and those in it. In the texts of a signal $value is the value that was found, $param:name a parameter of it.",
			list(&s.Headers, 0, signalRulesMax, func(r *SignalRule) *node {
				return signalRuleTable(r, key("header", "The name of the header field.", token(&r.Name)).must().shown("X-Call-State"))
			})),
		key("user_to_user", "Signals made of pairs key=value in User-to-User (RFC 7433) in the same requests. $param:name is another pair.",
			list(&s.UserToUser, 0, signalRulesMax, func(r *SignalRule) *node {
				return signalRuleTable(r, key("key", "The key of the pair.", pairKey(&r.Name)).must().shown("state"))
			})),
		key("info", "Signals in the bodies of INFO requests inside of a call, as JSON or as lines key=value.", object(
			key("enabled", "Whether they are taken.", boolean(&s.Info.Enabled)).is("false"),
			key("from", "Who may send them. On a trunk of phones everybody is internal.", choice(&s.Info.From, whose, nil)).is("internal"),
			key("types", "Content types of such bodies; those that end in json are JSON. Without the key: application/vnd.trunktap.signal+json and application/vnd.trunktap.signal.",
				list(&s.Info.Types, 1, infoTypesMax, contentType)).shown("[application/json]"),
		)),
		key("conversation", "What names the conversation of a call, beside Replaces, Refer and Session-ID. The header fields may stand alone: \"conversation: [X-Conversation-ID]\".", shortly("headers",
			key("headers", "Names of header fields.", list(&s.Conversation.Headers, 0, headerNamesMax, token)).is("[]"),
			key("user_to_user", "The key of a pair in User-to-User, * for all of its data. Without the key: nothing there.",
				pairKey(&s.Conversation.UserToUser)).shown("conversation"),
			key("from", "Whose naming counts, that by In-Reply-To too. Callers that may name one can consent for others, or refuse. On a trunk of phones everybody is internal.", choice(&s.Conversation.From, whose, nil)).is("internal"),
		)),
		key("dtmf", "Codes that parties type. They are cut out of the recording.", object(
			key("pause", "The code that begins a secure pause.", code(&s.DTMF.Pause)).shown(`"*#0"`),
			key("resume", "The code that ends it.", code(&s.DTMF.Resume)).shown(`"*#1"`),
			key("from", "Who may type them.", choice(&s.DTMF.From, []string{"internal", "any"}, nil)).is("internal"),
		)),
		key("ami", "Asterisks whose manager interface is read.", list(&s.AMI, 0, feedsMax, amiTable)).atStart(),
		key("esl", "FreeSWITCHes whose event socket is read.", list(&s.ESL, 0, feedsMax, eslTable)).atStart(),
		natsTable(&s.NATS).atStart(),
	))
}

func signalRuleTable(r *SignalRule, name *node) *node {
	return object(
		name,
		key("value", "Its value, in which * stands for anything. Without the key: any.", text(&r.Value)).shown(`"queue*"`),
		key("event", "What the signal reports.", choice(&r.Event, events, nil)).must().shown("queue.start"),
		key("flow", "The menu of the signal.", template(&r.Flow, nil)).shown("$value"),
		key("queue", "The queue of the signal.", template(&r.Queue, nil)).shown(`"$param:queue"`),
		key("user", "The user of the signal.", template(&r.User, nil)).shown(`"$param:agent"`),
		key("role", "The role of the signal.", template(&r.Role, roles)).shown("agent"),
		key("party", "The party of the signal.", template(&r.Party, nil)).shown("agent"),
		key("other", "The other agent of the signal.", template(&r.Other, nil)).shown(`"$param:other"`),
		key("from", "Whose messages count; internal keeps callers from steering the recording. On a trunk of phones everybody is internal.", choice(&r.From, whose, nil)).is("any"),
		key("on_change", "Only where the value differs from that of the message before.", boolean(&r.OnChange)).is("false"),
	)
}

func amiTable(a *AMI) *node {
	return object(
		key("name", "Its name; signals have the source ami:NAME.", name(&a.Name)).must().shown("pbx1"),
		key("address", "Where it is reached.", hostPort(&a.Address)).must().shown("10.0.0.5:5038"),
		tlsTable(&a.TLS),
		key("username", "The section of manager.conf.", text(&a.Username)).must().shown("trunktap"),
		key("secret_file", "One line, the secret.", path(&a.SecretFile)).must().shown("/etc/trunktap/ami-secret"),
		key("challenge", "Log in by MD5, so that the secret does not cross the wire.", boolean(&a.Challenge)).is("true"),
		key("trunks", "The channels whose calls pass through this daemon and reach the outside; * at the end stands for anything.",
			list(&a.Trunks, 1, channelsMax, channel)).must().shown("[PJSIP/carrier-a]"),
		key("stations", "The channels whose calls pass through this daemon and are those of phones.",
			list(&a.Stations, 1, channelsMax, channel)).shown("[PJSIP/1*]"),
		key("call_id_variables", "The variables that hold the Call-ID of a channel. Without the key: TRUNKTAP_CALLID and what PJSIP and chan_sip have.",
			list(&a.CallIDVariables, 1, variablesMax, text)).shown("[SBC_CALLID]"),
		key("users", "The users behind endpoints and members of queues. Without an entry: the name of the endpoint.",
			mapping(&a.Users, feedUsersMax, text)).shown(`{PJSIP/1001: alice}`),
		key("member_names", "Agents of queues are named by their MemberName.", boolean(&a.MemberNames)).is("false"),
		key("queue_agents_only", "Only those are agents whom a queue gave a call, and members of conferences.", boolean(&a.QueueAgentsOnly)).is("false"),
		key("spy_role", "The role of who spies in a mode that is not known.", choice(&a.SpyRole, []string{"monitor", "coach", "barge"}, nil)).is("monitor"),
	)
}

func tlsTable(t *TLS) *node {
	return key("tls", "TLS to it. Whether may stand alone: \"tls: true\".", shortly("enabled",
		key("enabled", "Whether it is spoken.", boolean(&t.Enabled)).is("false"),
		key("ca_file", "Who signs its certificate, PEM. Without the key: whom the system trusts.", path(&t.CAFile)).shown("/etc/trunktap/pbx-ca.pem"),
		key("server_name", "The name in its certificate. Without the key: the host of the address.", text(&t.ServerName)).shown("pbx1.example.net"),
	))
}

func eslTable(e *ESL) *node {
	return object(
		key("name", "Its name; signals have the source esl:NAME.", name(&e.Name)).must().shown("pbx2"),
		key("address", "Where it is reached.", hostPort(&e.Address)).must().shown("10.0.0.6:8021"),
		key("user", "user@domain of the directory. Without the key: the password alone.", eslUser(&e.User)).shown("trunktap@pbx.example.net"),
		key("password_file", "One line, the password.", path(&e.PasswordFile)).must().shown("/etc/trunktap/esl-password"),
		key("trunks", "Which channels lead out to the external side; one of the lists must name it. Without any: those of a gateway or of the profile external.", object(
			key("gateways", "Names of gateways.", list(&e.Gateways, 0, channelsMax, text)).is("[]"),
			key("profiles", "Names of SIP profiles.", list(&e.Profiles, 0, channelsMax, text)).is("[]"),
			key("networks", "Addresses of the far end.", list(&e.Networks, 0, channelsMax, peer)).is("[]"),
		)),
	)
}

func natsTable(n *NATS) *node {
	return key("nats", "Subjects of NATS on which signals come, as JSON. Without urls: none.", object(
		key("name", "Its name; signals have the source nats:NAME.", name(&n.Name)).is("main"),
		key("urls", "The servers.", list(&n.URLs, 0, feedsMax, natsURL)).is("[]"),
		key("subjects", "What is subscribed to.", list(&n.Subjects, 1, channelsMax, subject)).is(`["trunktap.signals.>"]`),
		key("stream", "A stream of JetStream with these subjects, out of which comes what was missed. Without the key: only what comes while connected.",
			natsName(&n.Stream)).shown("SIGNALS"),
		key("durable", "The name of the consumer in the stream.", natsName(&n.Durable)).shown("trunktap"),
		key("max_age", "Older messages of the stream are passed over.", duration(&n.MaxAge, time.Second, 24*time.Hour)).is("1h"),
		key("credentials_file", "A .creds file to log in with.", path(&n.CredentialsFile)).shown("/etc/trunktap/nats.creds"),
		key("token_file", "One line, the token to log in with.", path(&n.TokenFile)).shown("/etc/trunktap/nats-token"),
		key("user", "Who logs in by password.", text(&n.User)).shown("trunktap"),
		key("password_file", "One line, the password.", path(&n.PasswordFile)).shown("/etc/trunktap/nats-password"),
		key("ca_file", "Who signs the servers' certificates, PEM. Without the key: whom the system trusts.", path(&n.CAFile)).
			shown("/etc/trunktap/nats-ca.pem"),
	))
}
