package main

import "fmt"

// Names of the programs in results. What rtpengine is, is in its name: nobody
// may read it as its kernel module.
const (
	rtpengineName = "rtpengine (userspace)"
	directName    = "direct"
)

// subject is what a run measures.
type subject struct {
	Program string `json:"program"` // rtpengine (userspace) | trunktap | direct
	Engine  string `json:"engine"`  // of trunktap: user | kernel
	Format  string `json:"format"`  // of recordings; empty: relay only
}

func (s subject) String() string {
	name := s.Program
	if s.Engine != "" {
		name += " " + s.Engine
	}
	switch {
	case s.Program == directName:
		return name
	case s.Format == "":
		return name + ", relay"
	}
	return fmt.Sprintf("%s, relay + %s", name, s.Format)
}

// signallingName is its name where calls have no media.
func (s subject) signallingName() string {
	switch {
	case s.direct():
		return s.Program
	case s.records():
		return s.Program + ", recorded"
	}
	return s.Program + ", not recorded"
}

func (s subject) direct() bool { return s.Program == directName }

// records tells whether recordings are made.
func (s subject) records() bool { return s.Format != "" }

// peer is what the subject is compared with: rtpengine doing the same.
func (s subject) peer() subject {
	p := subject{Program: rtpengineName}
	if s.records() {
		p.Format = "pcap"
	}
	return p
}

// Recording formats of trunktap that are measured. Segments are always sealed.
var formats = []string{"wav-pcmu", "ogg-opus"}

// subjects lists what a round measures, rtpengine and trunktap by turns.
func subjects(engines []string) []subject {
	var out []subject
	relayed := func(format string) {
		for _, e := range engines {
			out = append(out, subject{"trunktap", e, format})
		}
	}
	out = append(out, subject{Program: rtpengineName})
	relayed("")
	out = append(out, subject{Program: rtpengineName, Format: "pcap"})
	for _, f := range formats {
		relayed(f)
	}
	return out
}
