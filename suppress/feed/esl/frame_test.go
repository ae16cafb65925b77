package esl

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const frames = "Content-Type: auth/request\n\n" +
	"Content-Type: command/reply\nReply-Text: +OK accepted\n\n" +
	"Content-Type: command/reply\r\nReply-Text: +OK accepted\r\nAllowed-Events: all\r\n\r\n\n" +
	"Content-Length: 11\nContent-Type: text/event-plain\n\na: b\n\nbody\n" +
	"Content-Type: api/response\nContent-Length: 2\n\n{}" +
	"Content-Type: text/disconnect-notice\nControlled-Session-UUID: x\nContent-Disposition: linger\nChannel-Name: y\nLinger-Time: 5\nContent-Length: 0\n\n"

var framesWant = []Message{
	{Type: typeAuth},
	{Type: typeReply, Reply: "+OK accepted"},
	{Type: typeReply, Reply: "+OK accepted"},
	{Type: typePlain, Body: []byte("a: b\n\nbody\n")},
	{Type: typeAPI, Body: []byte("{}")},
	{Type: typeDisconnect, Disposition: "linger"},
}

// parse feeds the pieces and returns all messages.
func parse(p *Parser, pieces ...string) (list []Message, err error) {
	for _, piece := range pieces {
		p.Feed([]byte(piece))
		for {
			m, ok, err := p.Next()
			if err != nil {
				return list, err
			}
			if !ok {
				break
			}
			list = append(list, m)
		}
	}
	return list, nil
}

// TestFrames: the messages are the same wherever the stream is cut.
func TestFrames(t *testing.T) {
	for cut := range len(frames) + 1 {
		got, err := parse(new(Parser), frames[:cut], frames[cut:])
		if err != nil || !reflect.DeepEqual(got, framesWant) {
			t.Fatalf("cut at %d: %v, %+v", cut, err, got)
		}
	}
	var p Parser
	got, err := parse(&p, strings.Split(frames, "")...)
	if err != nil || !reflect.DeepEqual(got, framesWant) || p.Partial() {
		t.Errorf("byte by byte: %v, %+v", err, got)
	}
}

func TestFrameLimits(t *testing.T) {
	large := func(n int) string {
		return fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", n, strings.Repeat("x", n))
	}
	var p Parser
	got, err := parse(&p, large(bodyBytesMax), large(bodyBytesMax+1), "Content-Type: auth/request\n\n")
	if err != nil || len(got) != 3 || got[0].Oversize || len(got[0].Body) != bodyBytesMax || !got[1].Oversize || got[1].Body != nil || got[2].Type != typeAuth {
		t.Errorf("%v, %d messages", err, len(got))
	}
	if cap(p.buf) > 2*bodyBytesMax {
		t.Errorf("the buffer keeps %d bytes", cap(p.buf))
	}
	p = Parser{}
	head := "Content-Type: api/response\nContent-Length: 200000000\n\n"
	pieces := []string{head}
	for range 200 {
		pieces = append(pieces, strings.Repeat("x", 1_000_000))
	}
	got, err = parse(&p, append(pieces, frames)...)
	if err != nil || len(got) != 1+len(framesWant) || cap(p.buf) > 4_000_000 {
		t.Errorf("a body that is passed over: %v, %d messages, buffer of %d bytes", err, len(got), cap(p.buf))
	}
	for _, text := range []string{
		"Content-Type: x\nContent-Length: 268435457\n\n",
		"Content-Type: x\nContent-Length: -1\n\n",
		"Content-Type: x\nContent-Length: 99999999999999999999\n\n",
		"Content-Type: x\nContent-Length: 1\nContent-Length: 2\n\n",
		"Content-Length: 1\n\n",
		"HTTP/1.1 400 Bad Request\n\n",
		strings.Repeat("x", headBytesMax+1),
		"A: " + strings.Repeat("x", headBytesMax) + "\n\n",
		"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
	} {
		if _, err := parse(new(Parser), text); !errors.Is(err, ErrFrame) {
			t.Errorf("%.40q: error %v", text, err)
		}
	}
}

func TestDecode(t *testing.T) {
	for in, want := range map[string]string{
		"_undef_": "", "a%20b": "a b", "+1": "+1", "%": "%", "%2": "%2", "%zz": "%zz", "%41%": "A%", "%e2%82%ac": "€", "": "",
	} {
		if got := decode(in); got != want {
			t.Errorf("decode(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestEventLimits(t *testing.T) {
	many := strings.Repeat("A: b\n", eventFieldsMax+1)
	for _, body := range []string{"", "\n", "no field", many} {
		if _, err := parsePlainEvent([]byte(body)); !errors.Is(err, errEvent) {
			t.Errorf("%.20q: error %v", body, err)
		}
	}
	for _, body := range []string{"", "[]", "5", "{}", `{"a":"b"}`, `{"Event-Name":`} {
		if _, err := ParseJSONEvent([]byte(body)); !errors.Is(err, errEvent) {
			t.Errorf("%.20q: error %v", body, err)
		}
	}
	e, err := parsePlainEvent([]byte("Event-Name: A\nEvent-Name: B\nUnique-ID\nX: y\n\nUnique-ID: of the body\n"))
	if err != nil || len(e) != 1 || e["Event-Name"] != "A" {
		t.Errorf("%v, %v", e, err)
	}
}

func FuzzParser(f *testing.F) {
	f.Add([]byte(frames), 5)
	f.Add([]byte("Content-Type: x\nContent-Length: 3\n\nab"), 1)
	f.Add([]byte("\n\r\nContent-Length: 99999999\nContent-Type: x\n\n"), 40)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		whole, errWhole := parse(new(Parser), string(text))
		cut = max(0, min(cut, len(text)))
		parts, errParts := parse(new(Parser), string(text[:cut]), string(text[cut:]))
		if (errWhole == nil) != (errParts == nil) || errWhole == nil && !reflect.DeepEqual(whole, parts) {
			t.Errorf("cut at %d: %v %+v, whole: %v %+v", cut, errParts, parts, errWhole, whole)
		}
		for _, m := range whole {
			if m.Type == "" || !bytes.Contains(text, m.Body) {
				t.Errorf("message %+v", m)
			}
			if e, err := ParseEvent(m); err == nil && len(e) == 0 {
				t.Error("an event of nothing")
			}
		}
	})
}
