package recorder

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a Query.
const (
	queryTextMax  = 1024 // bytes of one value
	queryAttrsMax = 8    // attributes of one query
	queryWordsMax = 16   // words of a free text
	NumberPartMin = 3    // characters of Number without a time range
	GapsYes       = "yes"
	GapsNo        = "no"
)

// Orders of a listing.
const (
	OrderNewest   = "newest" // the default
	OrderOldest   = "oldest"
	OrderLongest  = "longest"
	OrderShortest = "shortest"
)

// Query selects recordings. Zero fields do not restrict; those that do must all
// hold. Its fields are described, by the names of API and command line, in
// QueryFields.
type Query struct {
	From, To time.Time // origin (or start, when never answered) in [From, To)

	Number       string // is in the user part of From or To
	NumberPrefix string
	NumberSuffix string
	NumberIs     string
	Party        string // the address, or its user part, of anybody who took part

	Trunk     string
	Queue     string // that the call passed
	Flow      string // of the IVR
	Agent     string // who took part
	User      string // whose recording it is, exactly
	Kind      Kind
	Direction string
	EndCause  string
	Codec     string // of any stream
	Format    string
	Consent   string
	Node      string // that recorded it
	Store     string // where it lies

	DurationMin time.Duration // of the call
	DurationMax time.Duration

	Attrs    []string // each key=value, or key for any value
	Recorded string   // yes: some audio was captured; no: none was
	Gaps     string   // yes | no
	GapsMin  time.Duration

	Window    string        // reason of a window that is there
	NoWindow  string        // reason of which none is there
	WindowMin time.Duration // sum of the windows of reason Window; without that, of all
	WindowMax time.Duration

	MOSBelow  float64 // of the worst stream; a recording without an estimate does not count
	LossAbove float64 // percent, of the worst stream

	SIPCallID    string
	Conversation string
	Text         string // words, all in parties, attributes, flows, queues or agents; a last * matches the rest of a word

	Order  string
	Limit  int    // at most recordings a page; 0 means 100, 1000 is the most
	Cursor string // Next of the page before
	Total  bool   // count them too, up to a bound
}

// QueryError says what is wrong with a field of a query.
type QueryError struct {
	Field string // name as in QueryFields
	Why   string
}

// Error implements error.
func (e *QueryError) Error() string { return e.Field + ": " + e.Why }

// QueryField is one thing that recordings can be searched by.
type QueryField struct {
	Name  string   // of the API's parameter; the command line has hyphens for underscores
	Doc   string   // one sentence
	Arg   string   // what a value is: TIME, DURATION, TEXT, ...
	Words []string // allowed values; nil: any
	Many  bool     // may be given several times
	Paged bool     // concerns the page, not what is on it

	set func(*Query, string) error
	get func(*Query) []string
}

// QueryFields are all fields of a Query, in the order of their documentation.
var QueryFields = []QueryField{
	timeField("from", "Not before this time.", func(q *Query) *time.Time { return &q.From }),
	timeField("to", "Before this time.", func(q *Query) *time.Time { return &q.To }),
	textField("number", "NUMBER", "With this in the user part of From or To; + and separators do not matter.", func(q *Query) *string { return &q.Number }),
	textField("number_prefix", "NUMBER", "From or To begins with it.", func(q *Query) *string { return &q.NumberPrefix }),
	textField("number_suffix", "NUMBER", "From or To ends with it.", func(q *Query) *string { return &q.NumberSuffix }),
	textField("number_is", "NUMBER", "From or To is it.", func(q *Query) *string { return &q.NumberIs }),
	textField("party", "ADDRESS", "With this party: an address, or its user part, of From, To, a channel, or somebody who joined.", func(q *Query) *string { return &q.Party }),
	textField("trunk", "NAME", "Of this trunk.", func(q *Query) *string { return &q.Trunk }),
	textField("queue", "NAME", "Passed this queue.", func(q *Query) *string { return &q.Queue }),
	textField("flow", "NAME", "Passed this flow of the IVR.", func(q *Query) *string { return &q.Flow }),
	textField("agent", "NAME", "With this agent or user.", func(q *Query) *string { return &q.Agent }),
	textField("user", "NAME", "This user's: of stations, consultations, adhoc recordings and snippets.", func(q *Query) *string { return &q.User }),
	wordField("kind", "Of this kind.", func(q *Query) *string { return (*string)(&q.Kind) }, "trunk", "station", "consult", "adhoc", "snippet"),
	wordField("direction", "Of this direction.", func(q *Query) *string { return &q.Direction }, "inbound", "outbound"),
	textField("end_cause", "CAUSE", "Ended for this cause.", func(q *Query) *string { return &q.EndCause }),
	textField("codec", "NAME", "With a stream of this codec.", func(q *Query) *string { return &q.Codec }),
	textField("format", "NAME", "In this format.", func(q *Query) *string { return &q.Format }),
	wordField("consent", "With this consent.", func(q *Query) *string { return &q.Consent }, "granted", "denied", "none"),
	textField("node", "NAME", "Recorded by this node.", func(q *Query) *string { return &q.Node }),
	textField("store", "NAME", "In the store of this name.", func(q *Query) *string { return &q.Store }),
	spanField("duration_min", "Not shorter than this, from origin to end.", func(q *Query) *time.Duration { return &q.DurationMin }),
	spanField("duration_max", "Not longer than this.", func(q *Query) *time.Duration { return &q.DurationMax }),
	attrField(),
	wordField("recorded", "Whether any audio was captured.", func(q *Query) *string { return &q.Recorded }, GapsYes, GapsNo),
	wordField("gaps", "Whether audio is missing.", func(q *Query) *string { return &q.Gaps }, GapsYes, GapsNo),
	spanField("gaps_min", "With gaps of this much together.", func(q *Query) *time.Duration { return &q.GapsMin }),
	textField("window", "REASON", "With a suppressed window of this reason.", func(q *Query) *string { return &q.Window }),
	textField("no_window", "REASON", "Without one of this reason.", func(q *Query) *string { return &q.NoWindow }),
	spanField("window_min", "With this much suppressed, for the reason of window when that is given.", func(q *Query) *time.Duration { return &q.WindowMin }),
	spanField("window_max", "With at most this much suppressed, likewise.", func(q *Query) *time.Duration { return &q.WindowMax }),
	numberField("mos_below", "With a stream whose estimated MOS is below this.", 1, 5, func(q *Query) *float64 { return &q.MOSBelow }),
	numberField("loss_above", "With a stream that lost more than these percent of its packets.", 0, 100, func(q *Query) *float64 { return &q.LossAbove }),
	textField("sip_call_id", "ID", "Of the call with this Call-ID, on either leg.", func(q *Query) *string { return &q.SIPCallID }),
	textField("conversation", "ID", "Of this conversation.", func(q *Query) *string { return &q.Conversation }),
	textField("text", "WORDS", "All these words are in parties, attributes, flows, queues or agents; word* is the beginning of one.", func(q *Query) *string { return &q.Text }),
	paged(wordField("order", "What comes first.", func(q *Query) *string { return &q.Order }, OrderNewest, OrderOldest, OrderLongest, OrderShortest)),
	paged(limitField()),
	paged(textField("cursor", "CURSOR", "next of the page before, with everything else unchanged.", func(q *Query) *string { return &q.Cursor })),
	paged(totalField()),
}

// FieldOf returns the field of a name; nil when there is none.
func FieldOf(name string) *QueryField {
	for i := range QueryFields {
		if QueryFields[i].Name == name {
			return &QueryFields[i]
		}
	}
	return nil
}

// Set sets a field from its text. Errors are *QueryError and never repeat the value.
func (f *QueryField) Set(q *Query, value string) error {
	switch {
	case len(value) > queryTextMax:
		return &QueryError{f.Name, fmt.Sprintf("longer than %d bytes", queryTextMax)}
	case value == "":
		return &QueryError{f.Name, "empty; leave it out"}
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return &QueryError{f.Name, "no text"}
	case f.Words != nil && !slices.Contains(f.Words, value):
		return &QueryError{f.Name, "allowed: " + strings.Join(f.Words, ", ")}
	}
	if !f.Many && len(f.get(q)) > 0 {
		return &QueryError{f.Name, "given more than once"}
	}
	if err := f.set(q, value); err != nil {
		return &QueryError{f.Name, err.Error()}
	}
	return nil
}

// Get returns what a field is set to, as Set takes it; nothing when it is not set.
func (f *QueryField) Get(q *Query) []string { return f.get(q) }

func paged(f QueryField) QueryField { f.Paged = true; return f }

func textField(name, arg, doc string, of func(*Query) *string) QueryField {
	return QueryField{
		Name: name, Arg: arg, Doc: doc,
		set: func(q *Query, s string) error { *of(q) = s; return nil },
		get: func(q *Query) []string { return orNone(*of(q), *of(q) != "") },
	}
}

func wordField(name, doc string, of func(*Query) *string, words ...string) QueryField {
	f := textField(name, strings.ToUpper(name), doc, of)
	f.Words = words
	return f
}

func timeField(name, doc string, of func(*Query) *time.Time) QueryField {
	return QueryField{
		Name: name, Arg: "TIME", Doc: doc,
		set: func(q *Query, s string) error {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil || t.IsZero() {
				return fmt.Errorf("allowed: a time of RFC 3339, such as 2026-11-22T16:36:08Z")
			}
			*of(q) = t
			return nil
		},
		get: func(q *Query) []string { return orNone(of(q).Format(time.RFC3339Nano), !of(q).IsZero()) },
	}
}

func spanField(name, doc string, of func(*Query) *time.Duration) QueryField {
	return QueryField{
		Name: name, Arg: "DURATION", Doc: doc,
		set: func(q *Query, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil || d < time.Millisecond || d%time.Millisecond != 0 {
				return fmt.Errorf("allowed: a duration of whole milliseconds, such as 90s or 1h30m")
			}
			*of(q) = d
			return nil
		},
		get: func(q *Query) []string { return orNone(of(q).String(), *of(q) != 0) },
	}
}

func numberField(name, doc string, least, most float64, of func(*Query) *float64) QueryField {
	return QueryField{
		Name: name, Arg: "N", Doc: doc,
		set: func(q *Query, s string) error {
			n, err := strconv.ParseFloat(s, 64)
			if err != nil || !(n > least && n < most) {
				return fmt.Errorf("allowed: a number between %g and %g", least, most)
			}
			*of(q) = n
			return nil
		},
		get: func(q *Query) []string {
			return orNone(strconv.FormatFloat(*of(q), 'g', -1, 64), *of(q) != 0)
		},
	}
}

func attrField() QueryField {
	return QueryField{
		Name: "attr", Arg: "KEY=VALUE", Many: true, Doc: "With this attribute; KEY alone: with any value.",
		set: func(q *Query, s string) error {
			if len(q.Attrs) == queryAttrsMax {
				return fmt.Errorf("at most %d", queryAttrsMax)
			}
			if s[0] == '=' {
				return fmt.Errorf("allowed: key=value, or key")
			}
			q.Attrs = append(slices.Clip(q.Attrs), s)
			return nil
		},
		get: func(q *Query) []string { return q.Attrs },
	}
}

func limitField() QueryField {
	return QueryField{
		Name: "limit", Arg: "N", Doc: "At most so many, 1 to 1000; without it 100.",
		set: func(q *Query, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > 1000 {
				return fmt.Errorf("allowed: 1 to 1000")
			}
			q.Limit = n
			return nil
		},
		get: func(q *Query) []string { return orNone(strconv.Itoa(q.Limit), q.Limit > 0) },
	}
}

func totalField() QueryField {
	return QueryField{
		Name: "total", Arg: "BOOL", Words: []string{"true"}, Doc: "Count all that match, up to 10000.",
		set: func(q *Query, _ string) error { q.Total = true; return nil },
		get: func(q *Query) []string { return orNone("true", q.Total) },
	}
}

func orNone(s string, ok bool) []string {
	if !ok {
		return nil
	}
	return []string{s}
}

// Check tells what of the query cannot be searched for; errors are *QueryError.
func (q *Query) Check() error {
	for i := range QueryFields {
		f := &QueryFields[i]
		for _, v := range f.get(q) {
			if len(v) > queryTextMax || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return &QueryError{f.Name, fmt.Sprintf("no text, or longer than %d bytes", queryTextMax)}
			}
			if f.Words != nil && !slices.Contains(f.Words, v) {
				return &QueryError{f.Name, "allowed: " + strings.Join(f.Words, ", ")}
			}
		}
	}
	switch {
	case q.DurationMax != 0 && q.DurationMax < q.DurationMin:
		return &QueryError{"duration_max", "less than duration_min"}
	case q.WindowMax != 0 && q.WindowMax < q.WindowMin:
		return &QueryError{"window_max", "less than window_min"}
	case len(strings.Fields(q.Text)) > queryWordsMax:
		return &QueryError{"text", fmt.Sprintf("at most %d words", queryWordsMax)}
	}
	return nil
}
