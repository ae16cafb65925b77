package siprec

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Bounds of what a daemon can have written.
const (
	legIDMax    = 1 << 53 // numbers in branches
	intervalMax = (1<<31 - 1) * time.Second
)

// check tells what is in an entry that no daemon can have written. What is damaged is to
// cost its own recording, and nothing of another.
func (j *journalled) check(session string) error {
	switch {
	case slices.Contains(j.Legs, nil):
		return fmt.Errorf("%w: a dialog of it is empty", errJournal)
	case !j.known():
		return fmt.Errorf("%w: it is of version %d, this one is %d", errJournal, j.SIPREC, journalVersion)
	case j.Session.ID != session || session == "":
		return fmt.Errorf("%w: it is under the name of another session", errJournal)
	case len(j.Legs) > serversMax:
		return fmt.Errorf("%w: it has %d dialogs", errJournal, len(j.Legs))
	}
	ids := map[media.StreamID]bool{}
	for i, l := range j.Legs {
		if err := l.check(); err != nil {
			return fmt.Errorf("%w: dialog %d: %w", errJournal, i, err)
		}
		for k, n := range l.Lines {
			if n.ID > j.Streams || n.ID != 0 && ids[n.ID] {
				return fmt.Errorf("%w: stream %d of dialog %d has the number of another", errJournal, k, i)
			}
			ids[n.ID] = true
		}
	}
	return nil
}

func (s *savedLeg) check() error {
	switch {
	case s.ID == 0 || s.ID > legIDMax || s.Branches > legIDMax:
		return fmt.Errorf("its number is %d, with %d requests", s.ID, s.Branches)
	case s.Interval != 0 && (s.Interval < refreshLeast || s.Interval > intervalMax):
		return fmt.Errorf("its session interval is %s", s.Interval)
	case s.Half > farEnd:
		return fmt.Errorf("it carries half %d of a call", s.Half)
	case len(s.Lines) > linesMax:
		return fmt.Errorf("it has %d streams", len(s.Lines))
	case s.Tag == "" || !oneLine(s.Tag, s.CNAME, s.From, s.To, s.Target) || !oneLine(s.Routes...):
		return fmt.Errorf("a field of its requests is none")
	}
	for i, n := range s.Lines {
		if n.Side > media.Internal || !oneLine(n.Kind, n.Proto, n.Label, n.Direction) || slices.ContainsFunc(n.Formats, func(f media.Format) bool { return !oneLine(f.Name, f.Params) }) {
			return fmt.Errorf("stream %d is none", i)
		}
	}
	return nil
}

// oneLine says whether texts can stand in a header or a line of a description.
func oneLine(texts ...string) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsAny(s, "\r\n\x00") })
}

// strange says whether a dialog of an entry is there already, by its number or by its name.
func (s *Server) strange(legs []*leg) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range legs {
		twice := slices.ContainsFunc(legs[:i], func(x *leg) bool { return x.id == l.id || x.key == l.key })
		if twice || s.byID[l.id] != nil || s.legs[l.key] != nil {
			return fmt.Errorf("%w: dialog %d is there already", errJournal, i)
		}
	}
	return nil
}
