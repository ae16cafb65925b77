package config

import (
	"strings"
	"testing"
	"time"
)

const rulesOf = minimal + "retention:\n  rules:\n"

// TestRetention: rules in their order, times in days, hours and never.
func TestRetention(t *testing.T) {
	c := mustParse(t, rulesOf+`
    - {delete_after: never, attr: "disputed=yes"}
    - {delete_after: 36h, trunk: a, kind: consult}
    - {delete_after: 90d, give_way_after: 30d, user: ann, storage: default}
    - {delete_after: 60d, former_trunk: carrier-old}
    - {delete_after: never, give_way_after: 365d}
`)
	want := []RetentionRule{
		{Attr: "disputed=yes"},
		{Trunk: "a", Kind: "consult", DeleteAfter: 36 * time.Hour},
		{User: "ann", Storage: "default", DeleteAfter: 90 * day, GiveWayAfter: 30 * day},
		{FormerTrunk: "carrier-old", DeleteAfter: 60 * day},
		{GiveWayAfter: 365 * day},
	}
	r := c.Retention
	if len(r.Rules) != len(want) || r.Every != time.Hour || r.DeletionsMax != 10_000 {
		t.Fatalf("%+v", r)
	}
	for i := range want {
		if r.Rules[i] != want[i] {
			t.Errorf("rule %d: %+v, want %+v", i, r.Rules[i], want[i])
		}
	}
}

// TestRetentionFaults: what would delete too soon, or never counts, is named.
func TestRetentionFaults(t *testing.T) {
	for rules, want := range map[string]string{
		"    - {trunk: a}":                                                 "retention.rules[0].delete_after",
		"    - {delete_after: 90}":                                         "has no unit",
		"    - {delete_after: 30m}":                                        "no number of days or hours",
		"    - {delete_after: 0d}":                                         "out of range",
		"    - {delete_after: 9999999d}":                                   "out of range",
		"    - {delete_after: 30d, give_way_after: 31d}":                   "longer than delete_after",
		"    - {delete_after: 30d}\n    - {trunk: a, delete_after: 90d}":   "rules[0] before it is for all",
		"    - {delete_after: 30d, trunk: b}":                              `no trunk or source "b"`,
		"    - {delete_after: 30d, trunk: a, former_trunk: b}":             "beside trunk",
		"    - {delete_after: 30d, storage: mars}":                         "no region",
		"    - {delete_after: 30d, kind: calls}":                           "is not known",
		"    - {delete_after: 30d, attr: \"=x\"}":                          "attribute",
		"    - {delete_after: 30d, trunk: a}\n    - {trunk: a, days: 3}\n": "days",
	} {
		if _, err := Parse("t.yaml", []byte(rulesOf+rules+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", rules, err, want)
		}
	}
}
