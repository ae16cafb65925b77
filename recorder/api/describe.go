package api

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// Events are the kinds of events, by what they tell of.
var Events = []struct{ Kinds, Doc string }{
	{"call.started, call.answered, call.ended", "a call that is observed"},
	{"signal", "a change of state and what it did"},
	{"segment.complete", "a file of audio is stored"},
	{"recording.published", "a recording is whole and can be found; data.copies: how much of it other recorders were sent (fork_to)"},
	{"copy.changed", "a copy goes to another server, or a side of it is sent no more or again: data.copies has, for each, servers, server and why a side is unsent"},
	{"recording.discarded", "a recording is not kept, and why: no consent, too short, a consultation took its place"},
	{"recording.failed", "the rest of a call is not recorded, or a recording waits for the next start"},
	{"storage.low, storage.recovered", "a disk fills up (data.level: warn, low, full), or has room again"},
	{"store.down, store.up", "a store does not take recordings, which wait in the spool, or does again"},
	{"store.unfit", "a store answers, and does not do what is asked of it, such as to lock objects: data.error"},
	{"upload.behind, upload.failed", "recordings have waited long for their store, or one alone cannot be carried there"},
	{"key.unreachable, key.revoked", "the key service does not answer, or says that the key may not be used: data.error; data.stops_in says how long recording goes on all the same"},
	{"key.stopped", "nothing is recorded for want of a key, calls go on: data.error"},
	{"key.restored", "the key service answers again, and recordings go on: data.away says after how long"},
	{"key.rotated, key.rotation_failed", "another key wraps what is new (data.key, data.before), or none could be made when it was due"},
	{"key.retired, key.rewrapped", "an old key was destroyed (data.key), or keys of recordings were wrapped anew (data.rewrapped, data.failed)"},
	{"recording.deleted", "a recording was deleted because it need not be kept any more: data.recording, data.reason"},
	{"recording.held, recording.released", "a recording was put under legal hold, or a hold ended: data.recording, data.name"},
	{"storage.made_room", "recordings were deleted before their time to make room on a disk that is low: data.recordings, data.bytes"},
	{"recording.shredded", "the key of a recording was destroyed: data.recording, data.reason"},
	{"next_hop.down, next_hop.up", "a next hop of a trunk does not answer, or does again"},
	{"call.refused", "a call that the daemon refused itself: data has trunk, cause, status, from, to, sip_call_id; data.missed counts those of the trunk that were not told before it"},
	{"alarm", "something needs an operator, named by data.alarm"},
}

// eventsDoc describes the stream.
func eventsDoc() string {
	b := strings.Builder{}
	b.WriteString("id is the event's seq, event its type, data the event as JSON. An event whose missed is not 0 says how many before it were lost, " +
		"because the subscriber did not keep up. Types, more may come: ")
	for i, e := range Events {
		if i > 0 {
			b.WriteString(". ")
		}
		b.WriteString(e.Kinds + ": " + e.Doc)
	}
	b.WriteString(".")
	return b.String()
}

// vocabulary are the words of properties whose types are strings in Go.
var vocabulary = map[string][]any{
	"Signal.event": words(suppress.IVRStart, suppress.IVREnd, suppress.QueueStart, suppress.QueueEnd, suppress.AgentJoin, suppress.AgentLeave,
		suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.ConsentGranted, suppress.ConsentDenied,
		suppress.ConsultStart, suppress.ConsultEnd, suppress.TransferExternal, suppress.TransferInternal, suppress.SnippetStart,
		suppress.SnippetEnd, suppress.AdhocStart, suppress.AdhocEnd, suppress.AttrsSet, suppress.DTMFStart, suppress.DTMFEnd),
	"Signal.role":        words(suppress.RoleAgent, suppress.RoleConsult, suppress.RoleMonitor, suppress.RoleCoach, suppress.RoleBarge),
	"Manifest.kind":      kinds,
	"LiveRecording.kind": kinds,
	"Manifest.consent":   words("granted", "denied", "none"),
}

var kinds = words(recorder.KindTrunk, recorder.KindStation, recorder.KindConsult, recorder.KindAdhoc, recorder.KindSnippet)

func words[T ~string](all ...T) []any {
	out := make([]any, len(all))
	for i, w := range all {
		out[i] = string(w)
	}
	return out
}

// meanings are the descriptions of properties that do not explain themselves.
var meanings = map[string]string{
	"Manifest.user":            "Whose recording it is: of stations, consultations, adhoc recordings and snippets.",
	"Manifest.other":           "The other agent of a consultation.",
	"Manifest.unsealed":        "It was written with its key in the open: neither secret nor kept from being changed by whoever could write the store.",
	"Manifest.consent":         "Absent: nobody asked.",
	"Manifest.signals":         "Changes of state in order of arrival and what they did; those of monitoring are left out.",
	"Manifest.refused":         "How many of what were beyond a limit and are not listed.",
	"Channel.party":            "The address in the signalling.",
	"Window.channel":           "The only channel that it silences, without taking out any time; absent: it suppresses both.",
	"ManifestSignal.reasons":   "Active after it; empty: captured.",
	"ManifestSignal.refused":   "Why it was not acted upon.",
	"ManifestSignal.recording": "The recording that it began or ended.",
	"LiveCall.recordings":      "All of the call, oldest first.",
	"LiveCall.recording":       "False: nothing of the call is recorded, or the recorder failed.",
	"LiveCall.reasons":         "Why nothing is captured now; empty: captured.",
	"LiveRecording.reasons":    "Why nothing is captured now; empty: captured.",
	"LiveRecording.user":       "Whose recording it is.",
	"Applied.applied_at":       "The time from which on it acts.",
	"Applied.late_ms":          "How long after its own time it arrived.",
	"Applied.missed_ms":        "How much was sealed by then and stays in the recording.",
	"Applied.reasons":          "Active after it; empty: captured.",
	"Applied.duplicate":        "It was seen before and changes nothing.",
	"Applied.refused":          "Why it was not acted upon; in events alone, a request is answered with a problem.",
	"Applied.recording":        "The recording that it began or ended.",
	"Problem.code":             "For programs; stable.",
}

// describe completes the OpenAPI document by what Go's types do not say: words,
// meanings, that no answer holds a null, and the shape of problems.
func describe(doc *huma.OpenAPI) {
	registry := doc.Components.Schemas
	problem := registry.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for name, sch := range registry.Map() {
		if name == "Recording" {
			name = "Manifest" // it has the same fields
		}
		for key, p := range sch.Properties {
			if p.Type == huma.TypeArray && !strings.HasSuffix(name, "InputBody") {
				p.Nullable = false
			}
			if text := meanings[name+"."+key]; text != "" {
				p.Description = text
			}
			if all := vocabulary[name+"."+key]; all != nil {
				p.Enum = all
			}
		}
	}
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Head, path.Post} {
			if op != nil {
				describeBodies(op, problem)
			}
		}
	}
	delete(registry.Map(), "ErrorModel")
	delete(registry.Map(), "ErrorDetail")
}

func describeBodies(op *huma.Operation, problem *huma.Schema) {
	for _, r := range op.Responses {
		if m := r.Content["application/problem+json"]; m != nil {
			m.Schema = problem
		}
	}
	if r := op.RequestBody; r != nil && r.Content["application/json"] != nil {
		delete(r.Content, "application/octet-stream") // huma's guess at a body that the handler reads itself
	}
}
