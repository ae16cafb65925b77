package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// A term is what the inverted index of either engine finds a recording by: a
// letter for its field, and a value. Its spelling is the same in both, and of
// letters, digits and characters beyond ASCII alone, so that FTS5's tokenizer
// takes it for one token and tsquery needs no escapes.
const (
	termTrunk        = 'a'
	termUser         = 'b'
	termCodec        = 'c'
	termDirection    = 'd'
	termEndCause     = 'e'
	termFlow         = 'f'
	termGap          = 'g' // of a cause; "" of any
	termConversation = 'h'
	termCallID       = 'i'
	termConsent      = 'j'
	termKind         = 'k'
	termLoss         = 'l' // more than so many percent
	termMOS          = 'm' // below
	termNode         = 'n'
	termFormat       = 'o'
	termParty        = 'p'
	termQueue        = 'q'
	termRecorded     = 'r'
	termStore        = 's'
	termAgent        = 't'
	termGapMS        = 'u' // gaps of at least so many seconds together
	termAttr         = 'v' // key=value, and key alone
	termWindow       = 'w'
	termWindowMS     = 'y' // reason, and a sum of at least so many seconds
	termLonger       = 'z' // at least so many seconds
	termWord         = 'x'
	termNumber       = '1' // whole
	termClass        = '2' // of its duration
	termTime         = '3' // hours of its key
	termGram         = '0' // four characters of a number, which begins with ^ and ends with $
)

// Limits of what is indexed of one recording. What is beyond is found by other fields.
const (
	termBytesMax  = 40 // longer values are hashed
	wordsMax      = 200
	termsMax      = 400 // parties, attributes, agents, ...
	numberMax     = 32  // characters of a number
	gramLen       = 4
	escape        = 0x2500 // added to ASCII that is neither lower-case letter nor digit
	hashedTermLen = 20     // hex digits
)

// Tails of what is measured: a recording has the term of each that it reaches.
var (
	longerTails = []int64{600, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600} // seconds
	windowTails = []int64{60, 300, 900, 3600}                                 // seconds
	gapTails    = []int64{1, 10, 60, 600}                                     // seconds
	lossTails   = []int64{1, 2, 5, 10, 20, 50}                                // percent
	mosTails    = []int64{20, 25, 30, 33, 36}                                 // tenths
)

// term spells a term.
func term(field rune, value string) string {
	if len(value) > termBytesMax {
		sum := sha256.Sum256([]byte(value))
		return string(field) + "00" + hex.EncodeToString(sum[:])[:hashedTermLen]
	}
	var b strings.Builder
	b.WriteRune(field)
	for _, r := range value {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r >= utf8.RuneSelf:
			b.WriteRune(r)
		default:
			b.WriteRune(escape + r)
		}
	}
	return b.String()
}

// terms are those of one recording.
type terms struct {
	short []string // of fields with few values, which rows also have in themselves
	other []string
	key   int64 // of the row, whose hours are terms
}

// inRow tells whether terms of a field are among the short ones.
func inRow(field rune) bool {
	switch field {
	case termConversation, termCallID, termParty, termAttr, termWord, termGram, termNumber, termClass, termLonger, termWindowMS, termGapMS, termLoss, termMOS:
		return false
	}
	return true
}

func (t *terms) add(field rune, value string) {
	switch {
	case value == "":
	case inRow(field) && len(t.short) < termsMax:
		t.short = append(t.short, term(field, value))
	case !inRow(field) && len(t.other) < wordsMax+termsMax:
		t.other = append(t.other, term(field, value))
	}
}

func (t *terms) words(text string) {
	for _, w := range wordsOf(text) {
		if len(t.other) < wordsMax+termsMax {
			t.other = append(t.other, term(termWord, w))
		}
	}
}

// wordsOf splits text into words, in lower case.
func wordsOf(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(strings.ToValidUTF8(text, " ")), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
	for i, w := range words {
		for len(w) > termBytesMax { // of a longer word the beginning
			_, n := utf8.DecodeLastRuneInString(w)
			w = w[:len(w)-n]
		}
		words[i] = w
	}
	return words
}

// termsOf lists the terms of a recording. m gives what is measured.
func termsOf(r *recorder.Row, m measures, from, to string) terms {
	var t terms
	x := &r.Manifest
	for _, f := range []struct {
		field rune
		value string
	}{
		{termTrunk, x.Trunk},
		{termUser, x.User},
		{termDirection, x.Call.Direction},
		{termEndCause, x.Call.EndCause},
		{termConversation, x.Conversation},
		{termCallID, x.Call.SIPCallID},
		{termCallID, x.Call.OtherSIPCallID},
		{termConsent, x.Consent},
		{termKind, string(x.Kind)},
		{termFormat, x.Format},
		{termNode, r.Node},
		{termStore, r.Store},
		{termAgent, x.User},
		{termAgent, x.Other},
	} {
		t.add(f.field, clean(f.value))
	}
	t.addMeasures(m)
	for _, s := range x.Streams {
		t.add(termCodec, clean(strings.ToLower(s.Codec)))
	}
	for _, g := range x.Gaps {
		t.add(termGap, clean(g.Cause))
	}
	t.addPeople(x)
	for k, v := range x.Attrs {
		t.add(termAttr, clean(k))
		t.add(termAttr, clean(k)+"="+clean(v))
		t.words(k)
		t.words(v)
	}
	for _, num := range []string{from, to} {
		t.other = append(t.other, grams(num)...)
		t.add(termNumber, num)
	}
	t.short, t.other = distinct(t.short), distinct(t.other)
	return t
}

func (t *terms) addMeasures(m measures) {
	reach := func(field rune, tails []int64, have float64) {
		for _, n := range tails {
			if have >= float64(n) {
				t.add(field, fmt.Sprint(n))
			}
		}
	}
	t.add(termClass, classValue(classOf(m.realMS)))
	reach(termLonger, longerTails, float64(m.realMS)/1000)
	reach(termGapMS, gapTails, float64(m.gapMS)/1000)
	reach(termLoss, lossTails, m.loss)
	for _, n := range mosTails {
		if m.mos > 0 && m.mos < float64(n)/10 {
			t.add(termMOS, fmt.Sprint(n))
		}
	}
	t.add(termRecorded, yesNo(m.audioMS > 0))
	if m.gapMS > 0 {
		t.add(termGap, recorder.GapsYes)
	}
	for reason, ms := range m.windows {
		t.add(termWindow, reason)
		for _, n := range windowTails {
			if ms >= n*1000 {
				t.add(termWindowMS, fmt.Sprintf("%s=%d", reason, n))
			}
		}
	}
	for _, n := range windowTails {
		if m.suppressedMS >= n*1000 {
			t.add(termWindowMS, fmt.Sprintf("=%d", n))
		}
	}
}

func yesNo(b bool) string {
	if b {
		return recorder.GapsYes
	}
	return recorder.GapsNo
}

// addPeople adds who took part, queues and flows.
func (t *terms) addPeople(x *recorder.Manifest) {
	t.party(x.Call.From)
	t.party(x.Call.To)
	t.party(x.User)
	t.party(x.Other)
	for _, c := range x.Channels {
		t.party(c.Party)
	}
	for _, s := range x.Segments {
		for _, p := range s.Parties {
			t.party(p)
		}
	}
	for _, s := range x.Signals {
		t.add(termQueue, clean(s.Queue))
		t.add(termFlow, clean(s.Flow))
		t.words(s.Queue)
		t.words(s.Flow)
		t.party(s.Party)
		t.party(s.User)
		t.party(s.Other)
		if s.Event == suppress.AgentJoin {
			t.add(termAgent, clean(s.User))
		}
	}
}

// party adds an address by itself, by its user part, and by its words.
func (t *terms) party(address string) {
	if address = clean(address); address == "" {
		return
	}
	full, user := partyOf(address)
	t.add(termParty, full)
	if user != full {
		t.add(termParty, user)
	}
	t.words(full)
}

// partyOf returns an address without display name, scheme and parameters, and its user part,
// in lower case.
func partyOf(address string) (full, user string) {
	s := strings.ToLower(strings.TrimSpace(address))
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		s, _, _ = strings.Cut(s[i+1:], ">")
	}
	for _, scheme := range []string{"sip:", "sips:", "tel:"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			s = rest
			break
		}
	}
	user, host, at := strings.Cut(s, "@")
	user, _, _ = strings.Cut(user, ";")
	if !at {
		return user, user
	}
	host, _, _ = strings.Cut(host, ";")
	host, _, _ = strings.Cut(host, "?")
	return user + "@" + host, user
}

// numberOf is the user part of an address as numbers are compared: E.164 without
// its plus when it says so, else its digits, without separators. A name stays
// what it is, in lower case.
func (p numberPlan) numberOf(address string) string {
	_, user := partyOf(clean(address))
	n := p.normal(user)
	if r := []rune(n); len(r) > numberMax {
		n = string(r[:numberMax])
	}
	return n
}

// numberPlan tells what numbers without a country mean.
type numberPlan struct{ country string } // its code, such as 49; empty: they stay what they are

func (p numberPlan) normal(s string) string {
	s = strings.ToLower(s)
	bare := withoutSeparators(s)
	digits := strings.TrimPrefix(bare, "+")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return s // a name
	}
	switch {
	case digits != bare:
		return digits
	case strings.HasPrefix(bare, "00") && len(bare) > 8:
		return bare[2:]
	case p.country != "" && strings.HasPrefix(bare, "0") && len(bare) > 5:
		return p.country + bare[1:]
	}
	return bare
}

// withoutSeparators takes out what people write into numbers (RFC 3966 section 5.1.1).
func withoutSeparators(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-.() /", r) {
			return -1
		}
		return r
	}, s)
}

// part is a piece of a number, as somebody searches for it.
func numberPart(s string) string {
	s = strings.ToLower(s)
	if bare := strings.TrimPrefix(withoutSeparators(s), "+"); bare != "" && strings.Trim(bare, "0123456789") == "" {
		return bare
	}
	return s
}

// grams are all runs of four characters of ^number$.
func grams(number string) []string {
	if number == "" {
		return nil
	}
	return gramsOf("^" + number + "$")
}

func gramsOf(s string) []string {
	r := []rune(s)
	var out []string
	for i := 0; i+gramLen <= len(r); i++ {
		out = append(out, term(termGram, string(r[i:i+gramLen])))
	}
	if len(r) < gramLen {
		out = append(out, term(termGram, s))
	}
	return out
}

// clean makes a text that every database takes.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

func distinct(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
