package config

func signalsTable(s *Signals) *node {
	return key("signals", "Where call-state signals come from, beside the SDP of the call itself.", object(
		key("http", "POST /v1/calls/{call}/signals.", boolean(&s.HTTP)).is("true"),
		off("headers", "SIP header fields."),
		off("ami", "Asterisk's manager interface."),
		off("esl", "FreeSWITCH's event socket."),
		off("nats", "NATS subjects."),
		key("dtmf", "Codes that parties type. They are cut out of the recording.", object(
			key("pause", "The code that begins a secure pause.", code(&s.DTMF.Pause)).shown(`"*#0"`),
			key("resume", "The code that ends it.", code(&s.DTMF.Resume)).shown(`"*#1"`),
			key("from", "Who may type them.", choice(&s.DTMF.From, []string{"internal", "any"}, nil)).is("internal"),
		)),
	))
}
