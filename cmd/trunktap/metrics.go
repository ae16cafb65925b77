package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trunktap/trunktap/media/relay"
)

// newMetrics gathers the counters of all parts. Nothing is counted twice: each
// part keeps its own and is read when asked.
func newMetrics(d *daemon) prometheus.Gatherer {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, v *atomic.Int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: help},
			func() float64 { return float64(v.Load()) }))
	}
	unsigned := func(name, help string, v *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: help},
			func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: name, Help: help}, f))
	}
	v := currentVersion()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "trunktap", Name: "build_info", Help: "The version that runs.",
		ConstLabels: prometheus.Labels{"version": v.Version, "go": v.Go},
	}, func() float64 { return 1 }))

	r := d.rec.Stats()
	counter("recordings_started_total", "Calls whose recording began.", &r.Started)
	counter("recordings_published_total", "Recordings that are complete in the store.", &r.Published)
	counter("recordings_discarded_total", "Recordings that were not kept: never answered, not consented to, too short.", &r.Discarded)
	counter("recordings_failed_total", "Recordings whose pipeline failed.", &r.Failed)
	counter("recordings_refused_total", "Calls that could not be recorded.", &r.Refused)
	counter("segments_total", "Segments that are complete.", &r.SegmentsDone)
	counter("frames_refused_total", "Frames of audio given up because the write budget was spent.", &r.FramesRefused)
	counter("write_errors_total", "Failed operations on spool and store.", &r.WriteErrors)
	counter("signals_total", "Call-state signals.", &r.Signals)
	counter("signals_late_total", "Call-state signals that came after audio they concern was sealed.", &r.LateSignals)
	counter("suppression_missed_milliseconds_total", "Audio that is recorded because the signal to suppress it came too late.", &r.MissedMS)
	gauge("write_queue_bytes", "Audio that waits for the disk.", func() float64 { return float64(d.rec.QueuedBytes()) })

	e := d.archive.DeferredStats()
	gauge("deferred_recordings", "Recordings that wait to be coded after their call.", func() float64 { n, _ := d.archive.DeferredQueue(); return float64(n) })
	gauge("deferred_bytes", "Bytes of the recordings that wait to be coded.", func() float64 { _, b := d.archive.DeferredQueue(); return float64(b) })
	counter("deferred_encoded_total", "Recordings that were coded after their call.", &e.Done)
	counter("deferred_encoded_milliseconds_total", "Audio that was coded after its call.", &e.AudioMS)
	counter("deferred_kept_total", "Recordings that stay as they are for want of room to wait.", &e.Kept)
	counter("deferred_errors_total", "Attempts to code a recording that failed; they are made again.", &e.Failed)

	reg.MustRegister(newStorageMetrics(d.archive), newSweepMetrics(d.archive), newRetentionMetrics(d.archive), newKeyMetrics(d.sealer(), &d.rotation))
	counter("pauses_orphaned_total", "Secure pauses that stay on because the source that began them was lost.", &r.PausesOrphaned)
	keyWorkMetrics(reg, d.keys)
	stateMetrics(reg, d)
	auditMetrics(reg, d)

	relayMetrics(reg, d.relay)
	unsigned("sound_packets_total", "Packets sent with a beep or an announcement in them.", &d.sounds.counts.Mixed)
	unsigned("sound_undecodable_total", "Packets that a beep or an announcement could not be mixed into.", &d.sounds.counts.Undecodable)

	d.forks.register(reg)
	counter("monitors_failed_total", "Copies of calls that ended by a fault of ours.", &r.MonitorsFailed)
	if d.listener != nil {
		d.listener.register(reg)
	}

	signallingMetrics(reg, d)
	siprecMetrics(reg, d.siprec)
	drainMetrics(reg, d)
	reg.MustRegister(d.refusals.counted)
	reg.MustRegister(newUsageMetrics(d.archive.Usage))
	return reg
}

// signallingMetrics registers what the B2BUA and its transports count.
func signallingMetrics(reg *prometheus.Registry, d *daemon) {
	unsigned := func(name, help string, v *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: help},
			func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: name, Help: help}, f))
	}
	b := d.b2bua.Counters()
	gauge("calls", "Calls that are going on, ringing ones included.", func() float64 { return float64(d.b2bua.Calls()) })
	unsigned("calls_started_total", "Calls.", &b.CallsStarted)
	unsigned("calls_answered_total", "Calls that were answered.", &b.CallsAnswered)
	unsigned("calls_refused_total", "Calls refused by a limit, for want of ports or because recording was required.", &b.CallsRefused)
	unsigned("calls_unrecorded_total", "Calls that went on without the recorder.", &b.Unrecorded)
	unsigned("calls_media_silent_total", "Calls ended because nobody sent anything.", &b.MediaSilent)
	restartMetrics(gauge, unsigned, &d.restart)
	unsigned("calls_drained_total", "Calls refused because the daemon waits for its last call.", &b.Drained)
	unsigned("calls_restored_total", "Calls of the process before that went on after a restart.", &b.CallsRestored)
	unsigned("calls_lost_total", "Calls of the process before that could not go on.", &b.CallsLost)
	unsigned("calls_cut_total", "Calls of the process before that were ended because nobody had answered them yet.", &b.CallsCut)
	unsigned("calls_unjournalled_total", "Calls that would not survive a restart, or not as they are.", &b.Unjournalled)
	unsigned("sip_held_total", "Requests that waited for their party to connect again.", &b.Held)
	unsigned("sip_session_refreshes_total", "Requests sent to keep up session timers.", &b.SessionRefreshes)
	unsigned("sip_sessions_expired_total", "Calls ended because a party did not refresh its session, or did not answer a refresh.", &b.SessionsExpired)
	unsigned("sip_headers_edited_total", "Header fields taken out, set or added by rules of trunks.", &b.HeadersEdited)
	unsigned("sip_unknown_total", "SIP messages of no known dialog or transaction.", &b.Unknown)
	unsigned("sip_overflowed_total", "SIP messages that a full mailbox did not take.", &b.Overflowed)
	unsigned("sip_signals_refused_total", "Call-state signals in SIP messages that could not be taken.", &b.SignalsRefused)
	unsigned("sip_panics_total", "Faults of signalling that were survived.", &b.Panics)
	trunkMetrics(reg, d.b2bua, d.names)
	memoryMetrics(reg, d)
	t := b.Transport
	unsigned("sip_received_total", "SIP messages received.", &t.Received)
	unsigned("sip_sent_total", "SIP messages sent.", &t.Sent)
	unsigned("sip_denied_total", "Datagrams and connections of sources that belong to no trunk.", &t.Denied)
	unsigned("sip_unparseable_total", "Messages that could not be read.", &t.Unparseable)
	unsigned("sip_refused_total", "Requests among them that were answered with what is wrong.", &t.Refusals)
	unsigned("sip_send_errors_total", "SIP messages that could not be sent.", &t.SendErrors)
	unsigned("sip_connections_refused_total", "Connections beyond the limit.", &t.Refused)
	unsigned("sip_handshakes_failed_total", "Connections whose peer did not come through TLS or WebSocket.", &t.Handshakes)
	unsigned("sip_large_tcp_total", "Requests too large for UDP that went over TCP.", &b.LargeOverTCP)
	unsigned("sip_large_udp_total", "Requests too large for UDP that went over it, because the peer does not take TCP.", &b.LargeOverUDP)
	gauge("sip_connections", "Connections of TCP, TLS and WebSocket.", func() float64 { return float64(t.ConnsOpen.Load()) })
}

// relayMetrics registers what the relay counted over all its streams.
func relayMetrics(reg *prometheus.Registry, r *relay.Relay) {
	for name, m := range map[string]struct {
		help string
		of   func(relay.SideStats) uint64
	}{
		"relay_packets_total":                {"Packets taken from their streams' sources.", func(s relay.SideStats) uint64 { return s.Packets }},
		"relay_bytes_total":                  {"Bytes of these packets.", func(s relay.SideStats) uint64 { return s.Bytes }},
		"relay_forwarded_total":              {"Packets sent on.", func(s relay.SideStats) uint64 { return s.Forwarded }},
		"relay_kernel_total":                 {"Of the packets sent on, those that the kernel engine sent.", func(s relay.SideStats) uint64 { return s.Kernel }},
		"relay_untapped_total":               {"Packets that the kernel engine sent and that were not recorded, because its ring was full.", func(s relay.SideStats) uint64 { return s.Untapped }},
		"relay_rejected_source_total":        {"Packets from an address that is not their stream's source.", func(s relay.SideStats) uint64 { return s.RejectedSource }},
		"relay_rejected_form_total":          {"Packets that are neither RTP nor RTCP of their stream.", func(s relay.SideStats) uint64 { return s.RejectedForm }},
		"relay_unnegotiated_total":           {"Packets that came before anything was agreed.", func(s relay.SideStats) uint64 { return s.Unnegotiated }},
		"relay_ice_checks_total":             {"Connectivity checks of ICE that were answered.", func(s relay.SideStats) uint64 { return s.Checks }},
		"relay_unroutable_total":             {"Packets whose other side has no address to send to.", func(s relay.SideStats) uint64 { return s.Unroutable }},
		"relay_undecrypted_total":            {"Packets of sides with SRTP that could not be decrypted: forged, in clear, repeated, or before there were keys.", func(s relay.SideStats) uint64 { return s.Undecrypted }},
		"relay_undecrypted_keyless_total":    {"Of the packets that could not be decrypted, those that came while there were no keys.", func(s relay.SideStats) uint64 { return s.Keyless }},
		"relay_undecrypted_replayed_total":   {"Of the packets that could not be decrypted, those that came before.", func(s relay.SideStats) uint64 { return s.Replayed }},
		"relay_unprotected_total":            {"Packets not sent on because they could not be protected: no keys yet, or repeated.", func(s relay.SideStats) uint64 { return s.Unprotected }},
		"relay_receiver_reports_total":       {"Receiver reports sent to clients of SIPREC.", func(s relay.SideStats) uint64 { return s.Reports }},
		"relay_send_errors_total":            {"Packets that the kernel did not send.", func(s relay.SideStats) uint64 { return s.SendErrors }},
		"relay_socket_overrun_packets_total": {"Packets that the kernel dropped because the relay did not keep up.", func(s relay.SideStats) uint64 { return s.Overrun }},
	} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Name: name, Help: m.help},
			func() float64 { return float64(m.of(r.Totals())) }))
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Name: "relay_streams", Help: "Media streams that are relayed."},
		func() float64 { return float64(r.Streams()) }))
}
