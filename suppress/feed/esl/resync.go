package esl

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Commands that ask for the state.
const (
	cmdChannels = "api show channels as json"
	cmdBridged  = "api show bridged_calls as json"
	cmdQueues   = "api callcenter_config queue list"
	cmdMembers  = "api callcenter_config queue list members "
	cmdDump     = "api uuid_dump "
)

// Connected begins a connection: the commands ask what the state is now.
// Conferences and who listens to whom cannot be asked for in that way; of them
// what was known stays until their channels are gone.
func (t *Translator) Connected(now time.Time) []string {
	t.begin(now)
	t.queues = 0
	for _, c := range t.channels {
		c.asked = false
	}
	t.ask = append(t.ask, cmdChannels, cmdBridged, cmdQueues)
	for _, uuid := range slices.Sorted(maps.Keys(t.channels)) {
		if c := t.channels[uuid]; !c.known {
			t.askDump(c)
		}
	}
	return t.ask
}

// Reply translates the answer to a command: what the state differs by from
// what is known was missed, and is told with the time at which it happened, or
// the present where nobody can know it. A body of nil is no answer.
func (t *Translator) Reply(command string, body []byte, now time.Time) ([]suppress.Signal, []string) {
	t.begin(now)
	switch {
	case strings.HasPrefix(command, cmdDump):
		t.dumped(strings.TrimSuffix(command[len(cmdDump):], " json"), body)
	case len(body) == 0:
	case command == cmdChannels:
		t.syncChannels(body)
	case command == cmdBridged:
		t.syncBridged(body)
	case command == cmdQueues:
		t.syncQueues(body)
	case strings.HasPrefix(command, cmdMembers):
		t.syncMembers(command[len(cmdMembers):], body)
	}
	return t.out, t.ask
}

// rows is what "show ... as json" says.
type rows struct {
	Count int `json:"row_count"`
	Rows  []struct {
		UUID      string `json:"uuid"`
		CallState string `json:"callstate"`
		Other     string `json:"b_uuid"`
	} `json:"rows"`
}

// parseRows reads a listing; false for one that is not whole.
func parseRows(body []byte) (rows, bool) {
	var r rows
	if err := json.Unmarshal(body, &r); err != nil || r.Count != len(r.Rows) {
		return r, false
	}
	return r, true
}

func (t *Translator) syncChannels(body []byte) {
	list, ok := parseRows(body)
	if !ok {
		t.ignored++
		return
	}
	live := make(map[string]bool, len(list.Rows))
	for _, r := range list.Rows {
		live[r.UUID] = true
		c := t.get(r.UUID)
		switch {
		case c == nil:
		case !c.known, r.CallState == "HELD" && !c.hold.on:
			t.askDump(c)
		case r.CallState != "HELD" && c.hold.on:
			t.holdEnd(c, t.now)
		}
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.channels)) {
		if c := t.channels[uuid]; c != nil && !live[uuid] {
			t.gone(c, t.now)
		}
	}
}

func (t *Translator) syncBridged(body []byte) {
	list, ok := parseRows(body)
	if !ok {
		t.ignored++
		return
	}
	other := make(map[string]string, 2*len(list.Rows))
	for _, r := range list.Rows {
		other[r.UUID], other[r.Other] = r.Other, r.UUID
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.channels)) {
		if c := t.channels[uuid]; c.peer != nil && other[uuid] != c.peer.uuid {
			t.unbridge(c, t.now)
		}
	}
	for _, r := range list.Rows {
		a, b := t.channels[r.UUID], t.channels[r.Other]
		if a != nil && b != nil {
			t.bridge(a, b, t.now)
		}
	}
}

// dumped takes the variables of a channel. No dump means that the channel is
// gone.
func (t *Translator) dumped(uuid string, body []byte) {
	c := t.channels[uuid]
	if c == nil {
		return
	}
	defer func() { c.asked = false }()
	e, err := ParseJSONEvent(body)
	if err != nil || e["Unique-ID"] != uuid {
		if bytes.HasPrefix(body, []byte("-ERR No such channel")) {
			t.gone(c, t.now)
		}
		t.ignored++
		return
	}
	if e["Event-Name"] == "" {
		e["Event-Name"] = "CHANNEL_DATA"
	}
	if at := t.past(e, "Caller-Channel-Bridged-Time"); c.peer != nil && !c.known && at.Before(c.bridgedAt) {
		c.bridgedAt, c.peer.bridgedAt = at, at
	}
	t.learn(e)
	if e["Channel-Call-State"] == "HELD" {
		t.holdStart(c, t.past(e, "Caller-Channel-Last-Hold"))
	}
}

// past reads a time in microseconds; now when it is no plausible one.
func (t *Translator) past(e Event, name string) time.Time {
	at := e.micros(name)
	if at.IsZero() || t.now.Sub(at).Abs() > implausibleAfter {
		return t.now
	}
	return t.clock.Past(at, t.now).UTC()
}

// table reads what mod_callcenter lists: a line of names and a line for each
// row, parted by bars, and "+OK".
func table(body []byte) []map[string]string {
	var names []string
	var list []map[string]string
	for line := range bytes.Lines(body) {
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" || text == "+OK" || strings.HasPrefix(text, "-") {
			continue
		}
		cells := strings.Split(text, "|")
		if names == nil {
			names = cells
			continue
		}
		row := make(map[string]string, len(names))
		for i := range min(len(names), len(cells)) {
			row[names[i]] = cells[i]
		}
		list = append(list, row)
	}
	return list
}

func (t *Translator) syncQueues(body []byte) {
	for _, row := range table(body) {
		name := clean(row["name"])
		if name == "" || strings.ContainsAny(name, " \t") || t.queues >= queuesMax {
			t.ignored++
			continue
		}
		t.queues++
		t.ask = append(t.ask, cmdMembers+name)
	}
}

func (t *Translator) syncMembers(queue string, body []byte) {
	if bytes.HasPrefix(body, []byte("-")) {
		t.ignored++
		return
	}
	waiting := map[string]bool{}
	for _, row := range table(body) {
		c := t.channels[row["session_uuid"]]
		if c == nil {
			continue
		}
		switch row["state"] {
		case "Waiting", "Trying":
			waiting[c.uuid] = true
			t.queueStart(c, queue, t.epoch(row["joined_epoch"]))
		case "Answered":
			waiting[c.uuid] = true
			if c.queue == queue {
				t.queueEnd(c, queue, t.epoch(row["bridge_epoch"]))
			}
		}
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.channels)) {
		if c := t.channels[uuid]; c.queue == queue && !waiting[uuid] {
			t.queueEnd(c, queue, t.now)
		}
	}
}

// epoch reads seconds since 1970; now when they are no plausible time. The
// start of the second is meant for a start, for what is in doubt stays closed.
func (t *Translator) epoch(s string) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	at := time.Unix(n, 0).UTC()
	if err != nil || t.now.Sub(at).Abs() > implausibleAfter {
		return t.now
	}
	return t.clock.Past(at, t.now).UTC()
}
