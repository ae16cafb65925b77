package policy

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestUser(t *testing.T) {
	for uri, want := range map[string]string{
		"sip:alice@example.net":                          "alice",
		"SIP:Alice@Example.Net;transport=tcp":            "alice",
		"sips:bob-smith@[2001:db8::1]:5061?Subject=x":    "bob-smith",
		"sip:+4930123456;phone-context=x@sbc;user=phone": "+4930123456",
		"sip:0049(30)123-456@sbc":                        "+4930123456",
		"sip:+49.30.123-456@sbc":                         "+4930123456",
		"sip:030 123456@sbc":                             "030123456",
		"sip:1001:secret@pbx":                            "1001",
		"sip:%2B4930123456@sbc":                          "+4930123456",
		"sip:a%zz@sbc":                                   "a%zz",
		"sip:sbc.example.net":                            "",
		"tel:+49-30-123456;ext=7":                        "+4930123456",
		"tel:1001":                                       "1001",
		"sip:anonymous@anonymous.invalid":                "anonymous",
		"sip:*21*1001#@pbx":                              "*21*1001#",
		"sip:00@pbx":                                     "00",
		"sip:@pbx":                                       "",
		"1001":                                           "1001",
		"alice@example.net":                              "alice@example.net",
		"":                                               "",
		"sip:" + strings.Repeat("a", 1<<16) + "@example.net": strings.Repeat("a", 1<<16),
	} {
		if got := User(uri); got != want {
			t.Errorf("User(%.60q) = %.60q, want %.60q", uri, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for uri, want := range map[string]string{
		"sip:Alice@Example.net:5060;transport=tcp": "alice@example.net",
		"sips:alice@example.net?a=b":               "alice@example.net",
		"sip:bob@[2001:DB8::1]:5060":               "bob@[2001:db8::1]",
		"sip:0049301@pbx":                          "+49301@pbx",
		"sip:pbx":                                  "",
		"1001":                                     "",
		"tel:+49301":                               "",
	} {
		if got, ok := address(uri); got != want || ok != (want != "") {
			t.Errorf("address(%q) = %q, want %q", uri, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		list      string
		yes, noes string
	}{
		{"", "1001 alice +49", ""},
		{"1001", "1001", "10010 +1001 001001"},
		{"+49 30 1234", "+49301234", "49301234 +493012345"},
		{"0049-30-*", "+4930 +49301 +49301234", "+4931 030123"},
		{"*1234", "1234 +49301234", "12345"},
		{"+49*12*34", "+491234 +4915512345634", "+49341234x +4913424"},
		{"Anonymous,alice*", "anonymous alice alicex", "bob"},
		{"*", "1001 alice", ""},
		{"0800*", "0800123", "+49800123"},
		{"a*a", "aa aba", "a ab"},
	} {
		n := newNumbers(nil)
		if c.list != "" {
			n = newNumbers(strings.Split(c.list, ","))
		}
		for _, u := range strings.Fields(c.yes) {
			if !n.has(u) {
				t.Errorf("%q has not %q", c.list, u)
			}
		}
		for _, u := range strings.Fields(c.noes) {
			if n.has(u) {
				t.Errorf("%q has %q", c.list, u)
			}
		}
	}
}

// TestMatchesLikeRegexp compares with the engine that cannot be wrong.
func TestMatchesLikeRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,8}`).Draw(t, "pattern")
		text := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "text")
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(text)
		if got := matches(pattern, text); got != want {
			t.Fatalf("matches(%q, %q) = %v", pattern, text, got)
		}
	})
}

// TestFoldProperties: what is written in another way is the same number.
func TestFoldProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[1-9][0-9]{1,14}`).Draw(t, "digits")
		var spaced strings.Builder
		for _, c := range digits {
			spaced.WriteRune(c)
			spaced.WriteString(rapid.SampledFrom([]string{"", "", " ", "-", ".", "(", ")"}).Draw(t, "separator"))
		}
		for _, lead := range []string{"+", "00", "0", ""} {
			want := strings.Replace(lead, "00", "+", 1) + digits
			if got := Fold(lead + spaced.String()); got != want {
				t.Fatalf("Fold(%q) = %q, want %q", lead+spaced.String(), got, want)
			}
			if User("sip:"+lead+digits+"@sbc.example") != Fold(lead+spaced.String()) {
				t.Fatalf("%q is not the user %q", lead+digits, spaced.String())
			}
		}
	})
}

func FuzzUser(f *testing.F) {
	for _, s := range []string{"", "sip:", "sip:@", "tel:", "sip:a:b@c;d?e", "sip:%@x", "sips:[::1]", "00", "*", "sip:a@[", "+", "sip:00*@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		user := User(uri)
		if again := Fold(user); again != user {
			t.Errorf("%q folds to %q and then to %q", uri, user, again)
		}
		if whole, ok := address(uri); ok && (user == "" || !strings.HasPrefix(whole, user+"@")) {
			t.Errorf("%q: user %q, address %q", uri, user, whole)
		}
		numbers := newNumbers([]string{uri})
		if user == Fold(uri) && user != "" && !numbers.has(user) {
			t.Errorf("%q does not match itself", uri)
		}
	})
}
