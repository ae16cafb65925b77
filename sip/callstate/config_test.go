package callstate

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/suppress"
)

func TestConfigFaults(t *testing.T) {
	good := suppress.PauseStart
	_, err := New(Config{
		Headers: []HeaderRule{
			{Header: "X-Fine", Event: good, Queue: "$param:q"},
			{Header: "no name", Event: good},
			{Header: "X", Event: "pause"},
			{Header: "X", Event: suppress.CallLinked},
			{Header: "X", Event: suppress.AttrsSet},
			{Header: "X", Event: good, Value: strings.Repeat("x", patternBytesMax+1)},
			{Header: "X", Event: good, Queue: "$vaule", Flow: "$param:", Role: "boss", User: "a\nb"},
			{Header: "X", Event: good, From: "inside"},
		},
		UserToUser:             []UserToUserRule{{Key: "", Event: good}, {Key: "a=b", Event: ""}},
		UserToUserConversation: strings.Repeat("x", patternBytesMax+1),
		Conversation:           []string{"X-Fine", ""},
		ConversationFrom:       "me", InfoFrom: "you",
		InfoTypes: []string{"json", "a/b;c"},
	})
	var got []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var fault *ConfigError
			if !errors.As(e, &fault) || fault.Msg == "" {
				t.Errorf("no ConfigError: %v", e)
				continue
			}
			got = append(got, fault.Entry)
		}
	}
	same(t, "faults", got, []string{
		"headers[1].header", "headers[2].event", "headers[3].event", "headers[4].event", "headers[5].value",
		"headers[6].flow", "headers[6].queue", "headers[6].user", "headers[6].role", "headers[7].from",
		"user_to_user[0].key", "user_to_user[1].key", "user_to_user[1].event", "user_to_user_conversation",
		"conversation[1]", "conversation_from", "info_types[0]", "info_types[1]", "info_from",
	})
	_, err = New(Config{Headers: make([]HeaderRule, rulesMax+1)})
	if err == nil || !strings.HasPrefix(err.Error(), "headers: has 257 entries, allowed are 256") {
		t.Errorf("too many rules: %.80v", err)
	}
}

func TestPatternAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*]{1,7}`).Draw(t, "pattern")
		v := rapid.StringMatching(`[ab]{0,9}`).Draw(t, "value")
		if got, want := newPattern(p).match(strings.ToUpper(v)), matches(p, v); got != want {
			t.Fatalf("%q matches %q: %v, want %v", p, v, got, want)
		}
	})
}
