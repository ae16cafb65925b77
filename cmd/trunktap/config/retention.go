package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retention is how long recordings are kept.
type Retention struct {
	Every        time.Duration // between two looks
	DeletionsMax int           // of one look
	Nodes        []string      // whose recordings are deleted, besides this node's
	Rules        []RetentionRule
}

// RetentionRule says how long recordings of one sort are kept.
type RetentionRule struct {
	Trunk, FormerTrunk, Kind, User, Storage, Attr string // empty: any

	DeleteAfter  time.Duration // after its end; 0: never
	GiveWayAfter time.Duration // after its end, when a disk is low; 0: not before DeleteAfter
}

const (
	retentionRulesMax = 1000
	retentionNodesMax = 1000
	keepMin           = time.Hour
	keepMax           = 100 * 366 * day
)

func retentionTable(r *Retention) *node {
	return key("retention", "How long recordings are kept. Without rules for ever. See docs/retention.md.", object(
		key("every", "How often is looked for recordings that need not be kept any more.", duration(&r.Every, time.Second, 7*day)).is("1h"),
		key("deletions_max", "Recordings that one look deletes at most; the next one goes on. It leaves time to stop what a wrong clock or rule would delete.",
			integer(&r.DeletionsMax, 1, 1_000_000)).is("10000"),
		key("nodes", "Nodes whose recordings this one deletes, too, by its own rules: those that are no more, and former names of its own. Every node deletes its own.",
			list(&r.Nodes, 0, retentionNodesMax, text)).shown(`["rec-old"]`),
		key("rules", "The first rule whose keys all fit counts for a recording; one that none fits is kept for ever.",
			list(&r.Rules, 0, retentionRulesMax, retentionRule)),
	)).atStart()
}

func retentionRule(r *RetentionRule) *node {
	return object(
		key("delete_after", "So long after its end a recording is deleted.", keeping(&r.DeleteAfter)).must().shown("90d"),
		key("trunk", "Of this trunk, or SIPREC source.", name(&r.Trunk)).shown("carrier-a"),
		key("former_trunk", "In place of trunk: of one that is not in this file any more.", name(&r.FormerTrunk)).shown("carrier-old"),
		key("kind", "Of this kind.", choice(&r.Kind, []string{"trunk", "station", "consult", "adhoc", "snippet"}, nil)).shown("consult"),
		key("user", "This user's: of stations, consultations, adhoc recordings and snippets.", text(&r.User)).shown("agent-17"),
		key("storage", "In this region of storage.regions; default is storage.url.", regionName(&r.Storage)).shown("eu"),
		key("attr", "With this attribute: key=value, or key for any value.", attribute(&r.Attr)).shown("disputed=yes"),
		key("give_way_after", "So long after its end it may be deleted before its time, the oldest first, where storage.on_disk_low says delete-expired and its disk is low. Without the key: not before delete_after.",
			keeping(&r.GiveWayAfter)).shown("30d"),
	)
}

var attributeShape = regexp.MustCompile(`^[^=;&,\x00-\x1f\x7f]{1,256}(=[^\x00-\x1f\x7f]{1,1000})?$`)

func attribute(target *string) *node {
	return shaped(target, attributeShape, "attribute", "key=value, or key")
}

var keepingShape = regexp.MustCompile(`^([0-9]{1,7})(h|d)$|^never$`)

// keeping is a number of days or hours, or never.
func keeping(target *time.Duration) *node {
	want := fmt.Sprintf("days or hours such as 90d or 36h, from %s to %dd, or never", short(keepMin), keepMax/day)
	schema := map[string]any{"type": "string", "pattern": keepingShape.String()}
	return leaf(target, want, schema, func(s scalar) (time.Duration, *wrong) {
		m := keepingShape.FindStringSubmatch(s.text)
		switch {
		case s.kind == intScalar:
			return 0, wrongf("%v has no unit, write %sd or %sh", s, s.text, s.text)
		case m == nil || s.kind != stringScalar:
			return 0, wrongf("%v is no number of days or hours", s)
		case m[1] == "":
			return 0, nil
		}
		n, err := strconv.Atoi(m[1])
		d := time.Duration(n) * time.Hour
		if m[2] == "d" {
			d *= 24
		}
		if err != nil || d < keepMin || d > keepMax {
			return 0, wrongf("%s is out of range", s.text)
		}
		return d, nil
	})
}

// checkRetention holds what a rule cannot tell alone.
func (d *decoder) checkRetention(c *Config) {
	all := -1 // the rule that is for everything
	for i, r := range c.Retention.Rules {
		at := fmt.Sprintf("retention.rules[%d]", i)
		d.checkRegion(c, at+".storage", r.Storage)
		switch {
		case r.Trunk != "" && r.FormerTrunk != "":
			d.faultAt(at+".former_trunk", "it stands beside trunk", "one of both")
		case r.Trunk != "" && !slices.Contains(c.trunkNames(), r.Trunk): // a slip would let the next rule delete
			d.faultAt(at+".trunk", fmt.Sprintf("there is no trunk or source %q", r.Trunk), orList(c.trunkNames())+"; of a trunk that is no more: former_trunk")
		case r.GiveWayAfter > 0 && r.DeleteAfter > 0 && r.GiveWayAfter > r.DeleteAfter:
			d.faultAt(at+".give_way_after", "it is longer than delete_after: the recording is gone by then", "at most "+strings.TrimSuffix(short(r.DeleteAfter), "0m"))
		case all >= 0:
			d.faultAt(at, fmt.Sprintf("it never counts: rules[%d] before it is for all recordings", all), "the rule for all recordings as the last one")
		}
		if r.Trunk+r.FormerTrunk+r.Kind+r.User+r.Storage+r.Attr == "" && all < 0 {
			all = i
		}
	}
}

// trunkNames are those that recordings may carry.
func (c *Config) trunkNames() (names []string) {
	for i := range c.Trunks {
		names = append(names, c.Trunks[i].Name)
	}
	for i := range c.SIPREC.Sources {
		names = append(names, c.SIPREC.Sources[i].Name)
	}
	return names
}
