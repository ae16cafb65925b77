package siprec

import (
	"fmt"
	"slices"
)

// Merge returns the snapshot that follows when a document is received. A complete
// document replaces what was known; so does one without a data mode when nothing was
// known or when it tells of streams and participants both. A partial one brings
// objects that are new or changed (RFC 7865 section 6.1.1): an object replaces the
// one of the same id, attributes that it leaves out stay, and the associations of a
// participant with streams are replaced together.
//
// missing lists, in words, the objects that a partial document refers to and that
// nobody has told of: a reason to request a snapshot. Neither m nor update is changed.
func (m *Metadata) Merge(update *Metadata) (next *Metadata, missing []string) {
	if update.replaces(m) {
		next = update.clone()
		next.Mode = Complete
		next.SnapshotRequest = nil
		missing = next.missing(next.Memberships, next.Flows)
		return next, missing
	}
	next = m.clone()
	next.Mode = Complete
	next.Faults = slices.Clone(update.Faults)
	next.Groups = upsert(next.Groups, update.Groups, func(g Group) string { return idKey(g.ID) }, overGroup)
	next.Sessions = upsert(next.Sessions, update.Sessions, func(s Session) string { return idKey(s.ID) }, overSession)
	next.Participants = upsert(next.Participants, update.Participants, func(p Participant) string { return idKey(p.ID) }, overParticipant)
	next.Streams = upsert(next.Streams, update.Streams, func(s Stream) string { return idKey(s.ID) }, overStream)
	next.Recordings = upsert(next.Recordings, update.Recordings, func(a SessionRecording) string { return idKey(a.Session) }, overRecording)
	next.Memberships = upsert(next.Memberships, update.Memberships, membershipKey, overMembership)
	next.mergeFlows(update.Flows)
	for _, p := range update.Prefixes {
		if len(next.Prefixes) < metadataItemsMax && !slices.Contains(next.Prefixes, p) {
			next.Prefixes = append(next.Prefixes, p)
		}
	}
	next.Extensions = append(next.Extensions, update.Extensions...)
	if n := len(next.Extensions) - metadataItemsMax; n > 0 {
		next.Extensions = next.Extensions[n:]
	}
	missing = next.missing(slices.Concat(next.Memberships, update.Memberships), slices.Concat(next.Flows, update.Flows))
	return next, missing
}

// replaces says whether a document is everything there is to know.
func (m *Metadata) replaces(known *Metadata) bool {
	switch m.Mode {
	case Complete:
		return true
	case Partial:
		return false
	}
	return known.Empty() || len(m.Participants) > 0 && len(m.Streams) > 0
}

func membershipKey(a ParticipantSession) string {
	return idKey(a.Participant) + "\x00" + idKey(a.Session)
}

// upsert puts changed objects over those of the same key, and new ones behind.
func upsert[T any](list, changes []T, key func(T) string, over func(was, is T) T) []T {
	for _, c := range changes {
		k := key(c)
		i := slices.IndexFunc(list, func(t T) bool { return key(t) == k })
		if i >= 0 {
			list[i] = over(list[i], c)
		} else if len(list) < metadataItemsMax {
			list = append(list, c)
		}
	}
	return list
}

func overGroup(was, is Group) Group {
	keepZero(&is.Associate, was.Associate)
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

func overSession(was, is Session) Session {
	keepEmpty(&is.SIPSessionIDs, was.SIPSessionIDs)
	keepEmpty(&is.Reasons, was.Reasons)
	keepZero(&is.GroupRef, was.GroupRef)
	keepZero(&is.Start, was.Start)
	keepZero(&is.Stop, was.Stop)
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

func overParticipant(was, is Participant) Participant {
	keepEmpty(&is.Names, was.Names)
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

func overStream(was, is Stream) Stream {
	keepZero(&is.Session, was.Session)
	keepZero(&is.Label, was.Label)
	keepZero(&is.ContentType, was.ContentType)
	is.Mixed = is.Mixed || was.Mixed
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

func overRecording(was, is SessionRecording) SessionRecording {
	keepZero(&is.Associate, was.Associate)
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

// overMembership lets a participant come back: an association without an end that
// begins anew has none.
func overMembership(was, is ParticipantSession) ParticipantSession {
	if is.Associate.IsZero() {
		is.Associate = was.Associate
		keepZero(&is.Disassociate, was.Disassociate)
	}
	keepEmpty(&is.Params, was.Params)
	keepEmpty(&is.Extensions, was.Extensions)
	return is
}

func keepZero[T comparable](is *T, was T) {
	var zero T
	if *is == zero {
		*is = was
	}
}

func keepEmpty[T any](is *[]T, was []T) {
	if len(*is) == 0 {
		*is = was
	}
}

// mergeFlows applies associations with streams: those with an end take away, the
// others are all that their participant has from now on.
func (m *Metadata) mergeFlows(changes []ParticipantStream) {
	begun := map[string]bool{}
	for _, c := range changes {
		k := idKey(c.Participant)
		if !c.Disassociate.IsZero() {
			m.endFlows(k, c)
			continue
		}
		if !begun[k] {
			begun[k] = true
			m.Flows = slices.DeleteFunc(m.Flows, func(f ParticipantStream) bool { return idKey(f.Participant) == k })
		}
		if len(m.Flows) < metadataItemsMax {
			m.Flows = append(m.Flows, c)
		}
	}
}

// endFlows takes the named streams away from a participant; all when none is named.
func (m *Metadata) endFlows(participant string, c ParticipantStream) {
	all := len(c.Send)+len(c.Recv) == 0
	for i := range m.Flows {
		f := &m.Flows[i]
		if idKey(f.Participant) != participant || !f.Disassociate.IsZero() {
			continue
		}
		if all {
			f.Send, f.Recv = nil, nil
			continue
		}
		f.Send, f.Recv = without(f.Send, c.Send), without(f.Recv, c.Recv)
	}
}

func without(ids, gone []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(gone, func(g string) bool { return SameID(g, id) })
	})
}

// missing lists the references of associations that lead nowhere.
func (m *Metadata) missing(members []ParticipantSession, flows []ParticipantStream) []string {
	var out []string
	note := func(kind, id string) {
		text := fmt.Sprintf("%s %s", kind, id)
		if id != "" && len(out) < metadataFaultsMax && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	has := func(id string) bool { _, ok := m.Participant(id); return ok }
	for _, a := range members {
		if !has(a.Participant) {
			note("participant", a.Participant)
		}
	}
	for _, f := range flows {
		if !has(f.Participant) {
			note("participant", f.Participant)
		}
		for _, id := range f.Send {
			if _, ok := m.Stream(id); !ok {
				note("stream", id)
			}
		}
	}
	return out
}

func (m *Metadata) clone() *Metadata {
	c := *m
	c.Groups = slices.Clone(m.Groups)
	c.Sessions = slices.Clone(m.Sessions)
	c.Participants = slices.Clone(m.Participants)
	c.Streams = slices.Clone(m.Streams)
	c.Recordings = slices.Clone(m.Recordings)
	c.Memberships = slices.Clone(m.Memberships)
	c.Flows = slices.Clone(m.Flows)
	c.Extensions = slices.Clone(m.Extensions)
	c.Prefixes = slices.Clone(m.Prefixes)
	c.Faults = slices.Clone(m.Faults)
	return &c
}
