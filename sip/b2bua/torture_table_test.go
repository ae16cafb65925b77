package b2bua

const tortureHead = `# Messages that try a parser

What the daemon does with the messages of RFC 4475 and RFC 5118 when a peer of a trunk sends them over UDP, while a call goes on. A test sends them all and holds
this table; no call is harmed by any.

Three rules give all of it. What could be read in two ways is refused, for an element before or behind the daemon may read it the other way. What can be told
from its sender is refused with 400 and a ` + "`" + `Warning` + "`" + ` that says why, so that nobody repeats it for half a minute; what cannot is counted
(` + "`" + `trunktap_sip_unparseable_total` + "`" + `). And what the daemon need not understand passes as it came.
`

// The messages lie outside of the repository; see check.
var torture4475 = []tortured{
	{name: "badaspec", about: "white space inside of angle brackets", want: "200", why: "read as meant; the daemon answers OPTIONS outside of calls itself"},
	{name: "badbranch", about: "a branch of the magic cookie alone", want: "200", why: "taken for a branch of RFC 2543: nothing is concluded from it"},
	{name: "baddate", about: "Date in a zone that is not GMT", want: "100, passed on as INVITE", why: "fields that the daemon does not need pass as they are"},
	{name: "baddn", about: "display names with commas and without quotes, and no empty line behind the header", want: "400", why: "it ends before its header does"},
	{name: "badinv01", about: "commas and semicolons too many", want: "100, passed on as INVITE", why: "empty parameters mean nothing"},
	{name: "badvers", about: "SIP/7.0", want: "505", why: "another version"},
	{name: "bcast", about: "a response to somebody else's request", want: "nothing", why: "its Via is not ours; counted"},
	{name: "bext01", about: "Require and Proxy-Require of unknown extensions", want: "420", why: "what the daemon answers itself, it must understand; in calls Require passes to the far end"},
	{name: "bigcode", about: "status 4294967301", want: "nothing", why: "no status; responses are not answered"},
	{name: "clerr", about: "Content-Length beyond the datagram", want: "400", why: "a part of it is missing"},
	{name: "cparam01", about: "unknown parameters of Contact", want: "passed on as REGISTER", why: "content passes"},
	{name: "cparam02", about: "unknown parameters of the URI in Contact", want: "passed on as REGISTER", why: "content passes"},
	{name: "dblreq", about: "a second request behind the body", want: "passed on as REGISTER", why: "a datagram is one message; the rest is left out"},
	{name: "esc01", about: "escaped characters everywhere", want: "100, passed on as INVITE", why: "escapes pass as they are"},
	{name: "esc02", about: "escapes in the name of the method", want: "passed on as RE%47IST%45R", why: "a method of that name, not REGISTER"},
	{name: "escnull", about: "escaped NUL in names", want: "passed on as REGISTER", why: "escapes pass as they are"},
	{name: "escruri", about: "header fields in the Request-URI", want: "100, passed on as INVITE", why: "without them: they ask for a route that is not the far end's to choose"},
	{name: "insuf", about: "no From, To, Call-ID", want: "nothing", why: "an answer would have neither; counted"},
	{name: "intmeth", about: "a method of every character that one may have", want: "passed on as !interesting-Method0123456789_*+`.%indeed'~", why: "methods that the daemon does not know pass"},
	{name: "inv2543", about: "an INVITE of RFC 2543: no branch, no tag", want: "100, passed on as INVITE", why: "it still may be called from"},
	{name: "invut", about: "a body of an unknown type", want: "100, passed on as INVITE", why: "bodies pass; media that the daemon cannot read is not anchored"},
	{name: "longreq", about: "very long fields", want: "100, passed on as INVITE", why: "up to 64 KiB in all"},
	{name: "ltgtruri", about: "angle brackets around the Request-URI", want: "400", why: "no URI"},
	{name: "lwsdisp", about: "no space before the angle bracket", want: "200", why: "read as meant"},
	{name: "lwsruri", about: "a space in the Request-URI", want: "400", why: "two readings"},
	{name: "lwsstart", about: "two spaces in the request line", want: "400", why: "as RFC 3261 has it: elements on the way may read it otherwise"},
	{name: "mcl01", about: "two Content-Length", want: "400", why: "two readings of where it ends"},
	{name: "mismatch01", about: "CSeq of another method", want: "400", why: "two readings"},
	{name: "mismatch02", about: "an unknown method and CSeq of another", want: "400", why: "two readings"},
	{name: "mpart01", about: "a binary multipart body", want: "passed on as MESSAGE", why: "bodies pass byte for byte"},
	{name: "multi01", about: "fields twice that may be there once", want: "400", why: "two readings"},
	{name: "ncl", about: "a negative Content-Length", want: "400", why: "no number"},
	{name: "noreason", about: "a response without reason", want: "nothing", why: "read, and of no request of ours"},
	{name: "novelsc", about: "a Request-URI of an unknown scheme", want: "200", why: "OPTIONS is answered whatever it is for"},
	{name: "quotbal", about: "a quote that does not end", want: "400", why: "nobody knows where the name ends"},
	{name: "regaut01", about: "an unknown scheme of Authorization", want: "passed on as REGISTER", why: "for the far end to judge"},
	{name: "regbadct", about: "a question mark in a URI without brackets", want: "passed on as REGISTER", why: "for the far end to judge"},
	{name: "regescrt", about: "an escaped header field in Contact", want: "passed on as REGISTER", why: "content passes"},
	{name: "scalar02", about: "numbers beyond their range", want: "400", why: "CSeq does not fit"},
	{name: "scalarlg", about: "a response with numbers beyond their range", want: "nothing", why: "responses are not answered"},
	{name: "sdp01", about: "Accept without application/sdp", want: "100, passed on as INVITE", why: "for the far end to judge"},
	{name: "semiuri", about: "a semicolon in the user part", want: "200", why: "OPTIONS is answered whatever it is for"},
	{name: "test", about: "an INVITE of before SIP/2.0, and no header field that holds", want: "nothing", why: "no version, and no Via to answer to"},
	{name: "transports", about: "Via of unknown transports", want: "200", why: "those behind the first are nobody's business"},
	{name: "trws", about: "spaces behind the version", want: "400", why: "no request line of RFC 3261"},
	{name: "unkscm", about: "a Request-URI of a scheme that nobody knows", want: "200", why: "OPTIONS is answered whatever it is for"},
	{name: "unksm2", about: "schemes that nobody knows in From, To and Contact", want: "passed on as REGISTER", why: "for the far end to judge"},
	{name: "unreason", about: "a reason in another script", want: "nothing", why: "read, and of no request of ours"},
	{name: "wsinv", about: "every liberty with white space and compact forms", want: "481", why: "read; it has a tag of a dialog that is not known"},
	{name: "zeromf", about: "OPTIONS with Max-Forwards 0", want: "200", why: "it has arrived; elsewhere 0 is answered with 483"},
}
