package config

import (
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestKeys: every key of the policies.
func TestKeys(t *testing.T) {
	k := mustParse(t, minimal+`
keys:
  mode: vault
  former: [none, pkcs11]
  rotate: monthly
  on_unreachable: stop
  on_revoked: continue
  cache: {renew: 10m, for: 2h, check: 5s}
`).Keys
	if !slices.Equal(k.Former, []string{"none", "pkcs11"}) || k.Rotate != (Interval{Months: 1}) || k.OnUnreachable != "stop" || k.OnRevoked != "continue" {
		t.Errorf("%+v", k)
	}
	if d := gocmp.Diff(KeyCache{10 * time.Minute, 2 * time.Hour, 5 * time.Second}, k.Cache); d != "" {
		t.Error(d)
	}
	if k := mustParse(t, minimal+"keys: {mode: none, i_understand: true}\n").Keys; k.Mode != ModeNone || !k.IUnderstand {
		t.Errorf("%+v", k)
	}
}

// TestChecks: what other packages find has its place, is sorted in with the rest,
// and is not said of a key that was faulty itself.
func TestChecks(t *testing.T) {
	_, faults := Parse("t.yaml", []byte(minimal+"keys: {mode: vault, vault: {key: 5, address: x}, tries: 99}\n"), func(c *Config, fault func(string, string, string)) {
		fault("keys.vault.key", "is empty", "a name")
		fault("keys.vault.address", "is no URL", "https://host")
		fault("keys.vault.auth", "lacks a token", "")
	})
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	want := []string{
		`t.yaml:5:28: keys.vault.auth: lacks a token`,
		`t.yaml:5:34: keys.vault.key: "5" is no text, put it into quotes; allowed: text of 1 to 256 bytes without control characters`,
		`t.yaml:5:46: keys.vault.address: is no URL; allowed: https://host`,
		`t.yaml:5:57: keys.tries: 99 is out of range; allowed: a whole number from 1 to 10`,
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestInterval: the words of the calendar.
func TestInterval(t *testing.T) {
	for _, c := range []struct{ word, from, to string }{
		{"daily", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"},
		{"weekly", "2026-12-29T00:00:00Z", "2027-01-05T00:00:00Z"},
		{"monthly", "2026-01-31T08:00:00Z", "2026-02-28T08:00:00Z"},
		{"monthly", "2026-12-15T08:00:00Z", "2027-01-15T08:00:00Z"},
		{"yearly", "2028-02-29T00:00:00Z", "2029-02-28T00:00:00Z"},
		{"36h", "2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z"},
	} {
		k := mustParse(t, minimal+"keys: {rotate: "+c.word+"}\n").Keys
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Rotate.After(from).Format(time.RFC3339); got != c.to {
			t.Errorf("%s after %s: %s, want %s", c.word, c.from, got, c.to)
		}
	}
	if !mustParse(t, minimal).Keys.Rotate.IsZero() {
		t.Error("keys are rotated though nobody said so")
	}
}

// TestIntervalGoesOn: whatever the day, the next time is later, and not by more
// than is meant.
func TestIntervalGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "from"), 0).UTC()
		for word, most := range map[string]time.Duration{"daily": day, "weekly": 7 * day, "monthly": 31 * day, "yearly": 366 * day} {
			if d := intervals[word].After(from).Sub(from); d <= 0 || d > most || d < most-4*day && word != "daily" {
				t.Fatalf("%s after %s: %s", word, from, d)
			}
		}
	})
}
