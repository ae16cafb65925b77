package config

// Signals tells which sources of call-state signals are open.
type Signals struct {
	HTTP bool
	DTMF SignalsDTMF
}

// SignalsDTMF holds the codes that begin and end a secure pause.
type SignalsDTMF struct {
	Pause, Resume string // empty: none
	From          string // internal | any: who may type them
}
