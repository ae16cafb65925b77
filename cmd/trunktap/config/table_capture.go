package config

import "time"

// Bounds of lists and mappings, in elements.
const (
	namesMax     = 1000 // flows and queues of a trunk, each
	rulesMax     = 1000
	patternsMax  = 1000
	stationsMax  = 100_000
	addressesMax = 16
	recordersMax = 8
)

var (
	formats  = []string{"ogg-opus", "wav-pcm16", "wav-pcmu", "wav-pcma", "flac"}
	whom     = []string{"both", "external", "internal"}
	whose    = []string{"any", "external", "internal"}
	weekdays = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
)

func trunkRecordingTable(r *TrunkRecording) *node {
	return key("recording", "What is recorded of the trunk's calls.", object(
		key("enabled", "Whether calls are recorded at all, in whatever kind of recording.", boolean(&r.Enabled)).is("true"),
		key("on_failure", "What a call gets when it cannot be recorded: allow lets it through, refuse answers 503.",
			choice(&r.OnFailure, []string{"allow", "refuse"}, nil)).is("allow"),
		key("storage", "The region of storage.regions that its recordings lie in, and nowhere else; default is storage.url.", regionName(&r.Storage)).is("default"),
		key("priority", "Whose recordings get gaps first when the disk has no room for all: low before normal, normal before high.",
			choice(&r.Priority, []string{"low", "normal", "high"}, nil)).is("normal"),
		key("format", "The format of the audio.", choice(&r.Format, formats, nil)).is("ogg-opus"),
		key("sample_rate", "Samples a second and channel. auto: as many as the best codec that the call agrees when it is answered can fill. wav-pcmu and wav-pcma have 8000.",
			sampleRate(&r.SampleRate)).is("auto").quietly(),
		opusTable(&r.Opus),
		encodeTable(&r.Encode),
		key("dual_channel", "Each side on its own channel; false mixes them into one.", boolean(&r.DualChannel)).is("true"),
		key("level_control", "Bring quiet and loud speakers near to each other. What is recorded is then not what was heard.", boolean(&r.LevelControl)).is("false"),
		key("conceal", "Let codecs make up for lost packets, as telephones do; false leaves silence.", boolean(&r.Conceal)).is("true"),
		key("g726_packing", "The order of bits in what is called G726-16 to G726-40: rfc3551, or aal2 where devices pack it as AAL2-G726-16 to -40 in spite of the name.",
			choice(&r.G726Packing, []string{"rfc3551", "aal2"}, nil)).is("rfc3551").quietly(),
		key("inband_dtmf", "List digits that are heard as tones: auto on sides that have not agreed on telephone-event, on everywhere, off never.",
			choice(&r.InbandDTMF, []string{"auto", "on", "off"}, nil)).is("auto"),
		key("mask_dtmf", "Silence the tones of keys in the audio, at all times. Digits are listed all the same.", boolean(&r.MaskDTMF)).is("false"),
		key("early_media", "Record what is heard before the answer.", boolean(&r.EarlyMedia)).is("false"),
		consentTable(r),
		suppressTable(&r.Suppress),
		key("suppressed", "cut takes suppressed spans out of the audio, silence leaves digital silence.",
			choice(&r.Suppressed, []string{"cut", "silence"}, nil)).is("cut"),
		key("external_transfer", "Whether recording goes on after a transfer to an outside party. Recordings of stations always do.",
			choice(&r.ExternalTransfer, []string{"stop", "continue"}, nil)).is("stop"),
		key("pause_auto_resume", "A secure pause ends by itself so long after its latest start; 0s: never.",
			duration(&r.PauseAutoResume, 0, time.Hour)).is("0s"),
		key("discard_below", "Recordings with less audio are not kept; 0s: all are.", duration(&r.DiscardBelow, 0, time.Hour)).is("0s"),
		key("consult", "Record consultations between agents, each on its own.", boolean(&r.Consult)).is("false"),
		key("adhoc", "Users may start and stop a recording of their own.", boolean(&r.Adhoc)).is("true"),
		key("snippets", "Agents may start and stop recordings of parts of a call.", boolean(&r.Snippets)).is("true"),
		key("fork_to", "Other recorders that get a copy of the calls by SIPREC (RFC 7866), while they go on. See docs/fork.md.",
			list(&r.ForkTo, 1, recordersMax, otherRecorder)).shown(`["sip:record@10.0.0.9:5060;transport=tcp"]`),
		key("fork_mode", "failover: the first that takes a call gets it, the next one when it fails. all: each gets it.",
			choice(&r.ForkMode, []string{"failover", "all"}, nil)).is("failover"),
		key("fork_auth", "The user that other recorders know us as: their challenges (401, 407) are answered.", object(
			key("username", "Its name.", text(&r.ForkAuth.Username)).must().shown("trunktap"),
			key("password_file", "A file of one line, its password. On SIGHUP it is read again.", path(&r.ForkAuth.PasswordFile)).must().shown("/etc/trunktap/recorder.password"),
			key("realm", "The realm of the challenges that are answered. Without the key: any.", text(&r.ForkAuth.Realm)).shown("recorder.example.net"),
		)).apart(),
		key("fork_windows", "Whether the copy has what is suppressed here, secure pauses too. Nothing is sent before consent in any case.",
			boolean(&r.ForkWindows)).is("false"),
		announceTable(&r.Announce),
		beepTable(&r.Beep),
		rulesTable(r),
	))
}

func opusTable(o *Opus) *node {
	return key("opus", "How audio is coded for the format ogg-opus. A party who says nothing costs next to nothing, whatever stands here.", object(
		key("bitrate", "In bit/s of a channel in which something is heard. More is heard sooner than more complexity.", integer(&o.Bitrate, 6000, 128_000)).is("16000"),
		key("complexity", "What the encoder may cost: 3 costs half as much again as 1, 5 twice, 10 four times.", integer(&o.Complexity, 0, 10)).is("1"),
		key("application", "voip is shaped for speech, audio keeps nearest to the waveform; from 20000 bit/s on audio costs less than half.",
			choice(&o.Application, []string{"voip", "audio"}, nil)).is("voip"),
	))
}

func encodeTable(e *Encode) *node {
	return key("encode", "When audio is coded for the format ogg-opus. The mode may stand alone: \"encode: deferred\".", shortly("mode",
		key("mode", "live: during the call. deferred: after it, when the machine has time; until then, and where there was no room to wait, the recording has the format below.",
			choice(&e.Mode, []string{"live", "deferred"}, nil)).is("live"),
		key("as", "The format until then; that of the carrier loses nothing. Above 8000 samples a second it is wav-pcm16 or flac.",
			choice(&e.As, []string{"wav-pcmu", "wav-pcma", "wav-pcm16", "flac"}, nil)).is("wav-pcmu"),
	))
}

func consentTable(r *TrunkRecording) *node {
	d := &r.ConsentDTMF
	return key("consent", "Whether the call is recorded without being asked. The mode may stand alone: \"consent: required\".", shortly("mode",
		key("mode", "required: nothing is recorded before the signal consent.granted, and nothing at all after consent.denied.",
			choice(&r.Consent, []string{"off", "required"}, nil)).is("off"),
		key("preroll", "Keep what is heard before the decision in locked memory, and write it when consent is granted.",
			boolean(&r.ConsentPreroll)).is("false"),
		key("timeout", "How long a preroll is kept. Consent that is granted later acts from its own time on.",
			duration(&r.ConsentTimeout, time.Second, 10*time.Minute)).is("60s"),
		key("dtmf", "The digits that answer the question for consent. They are cut out of the recording.", object(
			key("grant", "Consent is granted.", code(&d.Grant)).shown(`"1"`),
			key("deny", "Consent is denied.", code(&d.Deny)).shown(`"2"`),
			key("from", "Who may type them.", choice(&d.From, whose, nil)).is("external"),
		)),
	))
}

func suppressTable(s *Suppress) *node {
	return key("suppress", "The states of a call that are not recorded. A secure pause never is.", object(
		key("ivr", "The caller talks to a menu.", boolean(&s.IVR)).is("true"),
		key("queue", "The caller waits for an agent.", boolean(&s.Queue)).is("true"),
		key("hold", "A party is on hold.", boolean(&s.Hold)).is("true"),
		key("flows", "What holds for menus of these names instead of ivr.", mapping(&s.Flows, namesMax, boolean)).shown("{card-entry: true}"),
		key("queues", "What holds for queues of these names instead of queue.", mapping(&s.Queues, namesMax, boolean)).shown("{complaints: false}"),
	))
}

func announceTable(a *Announce) *node {
	return key("announce", "What is played when a call is answered. The file may stand alone: \"announce: notice.wav\".", shortly("file",
		key("file", "PCM of 16 bit, one channel, 8, 16 or 48 kHz, at most a minute. Relative to the folder of this file. Without the key: nothing is played.", sound(&a.File)).shown("notice.wav"),
		key("to", "Who hears it.", choice(&a.To, whom, nil)).is("both"),
	)).atStart()
}

func beepTable(b *Beep) *node {
	return key("beep", "A tone that tells the parties of the recording. It is not heard while nothing is recorded.", object(
		key("enabled", "Whether it is heard.", boolean(&b.Enabled)).is("false"),
		key("preset", "What the keys below are when they are left out. genesys and none: 200ms every 14s. fs1037c: 500ms every 15s.",
			choice(&b.Preset, []string{"none", "genesys", "fs1037c"}, nil)).is("none"),
		key("frequency", "In Hz.", integer(&b.Frequency, 300, 3400)).is("1400").quietly(),
		key("second_frequency", "Of a second tone at the same time, in Hz; 0: none.", integer(&b.SecondFrequency, 0, 3400)).is("0"),
		key("duration", "Of one tone.", duration(&b.Duration, 20*time.Millisecond, 5*time.Second)).is("200ms").quietly(),
		key("interval", "From the start of one tone to the start of the next.", duration(&b.Interval, time.Second, time.Hour)).is("14s").quietly(),
		key("level", "In dB of full scale.", integer(&b.Level, -60, 0)).is("-24").quietly(),
		key("to", "Who hears it.", choice(&b.To, whom, nil)).is("both"),
	)).atStart()
}

func rulesTable(r *TrunkRecording) *node {
	return key("rules", "Which calls are recorded. The first rule that a call matches decides; a call that matches none is recorded. A rule holds for every kind of recording.",
		list(&r.Rules, 0, rulesMax, ruleTable))
}

func ruleTable(r *Rule) *node {
	return object(
		key("record", "Whether calls that match are recorded.", boolean(&r.Record)).must().shown("false"),
		key("percent", "How many of the calls that match, in percent; the others get the opposite. What is chosen depends on the call alone, so a replay chooses alike.",
			integer(&r.Percent, 0, 100)).is("100"),
		key("direction", "Seen from the PBX.", choice(&r.Direction, []string{"any", "inbound", "outbound"}, nil)).is("any"),
		key("from", "Who calls. Without the key: anybody.", list(&r.From, 1, patternsMax, pattern)).shown(`["+49 30 123*", anonymous]`),
		key("to", "Who is called. Without the key: anybody.", list(&r.To, 1, patternsMax, pattern)).shown(`["0800*"]`),
		key("days", "The days on which the hours begin. Without the key: every day.",
			list(&r.Days, 1, len(weekdays), func(t *string) *node { return choice(t, weekdays, nil) })).shown("[mon, tue, wed, thu, fri]"),
		key("hours", "When the call begins. Without the key: at any time.", hours(&r.Hours)).shown(`"08:00-18:00"`),
		key("time_zone", "The clock by which days and hours are meant.", timeZone(&r.TimeZone)).is("UTC"),
	)
}

func stationsTable(c *Config) *node {
	return key("stations", "Users whose own side of calls is recorded. A user without more to say may stand alone: \"stations: [alice]\".",
		list(&c.Stations, 0, stationsMax, stationTable))
}

func stationTable(s *Station) *node {
	return shortly("user",
		key("user", "The name in recordings and in the signals agent.join and adhoc.start.", text(&s.User)).must().shown("alice"),
		key("addresses", "What the phone of the user is called in SIP: whole URIs, or their user parts. Without the key: the user.",
			list(&s.Addresses, 1, addressesMax, address)).shown(`["sip:alice@pbx.example.net", "1001"]`),
		key("recording", "What differs from station_base.", stationRecordingTable(&s.Recording, false)),
	)
}

// stationRecordingTable has defaults for the base alone: stations inherit.
func stationRecordingTable(r *StationRecording, base bool) *node {
	n := object(
		key("enabled", "Whether the user is recorded.", boolean(&r.Enabled)).is("true"),
		key("format", "The format of the audio. Its sample rate is that of the trunk.", choice(&r.Format, formats, nil)).is("ogg-opus"),
		key("dual_channel", "Each side on its own channel; false mixes them into one.", boolean(&r.DualChannel)).is("true"),
		key("suppressed", "cut takes suppressed spans out of the audio, silence leaves digital silence.",
			choice(&r.Suppressed, []string{"cut", "silence"}, nil)).is("cut"),
		key("discard_below", "Recordings with less audio are not kept; 0s: all are.", duration(&r.DiscardBelow, 0, time.Hour)).is("0s"),
		key("storage", "The region of storage.regions that the recordings lie in; default is storage.url. Where nothing is said: that of the trunk.", regionName(&r.Storage)).shown("eu"),
	)
	if !base {
		for _, f := range n.fields {
			if f.def != "" {
				f.example, f.def = f.def, ""
			}
			f.doc += " Without the key: as station_base says."
		}
		n.fields[0].lively()
	}
	return n
}
