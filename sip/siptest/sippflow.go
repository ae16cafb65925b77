package siptest

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
)

// sippFlow writes one party's scenario of SIPp, line by line:
//
//	> INVITE sendrecv | Supported: 100rel     send a request; what follows | are further fields
//	> 183 sendrecv | RSeq: 1                  answer the last request
//	> 200/INVITE                              answer the last one of that method
//	> 180 tag=b                               by another branch of a fork
//	< 200 | Contact ~ sip:.*                  receive; the fields must match (POSIX)
//	<? 180                                    if it comes
//	< 401 auth                                a challenge that [authentication …] answers
//	pause 300                                 ms
//	< INVITE if=Replaces:1                    with this field it goes on at label 1
//	end, label 1
//
// Descriptions are sendrecv, sendonly, recvonly, inactive, zero (RFC 2543), big (8 kB);
// frag:200 is a message/sipfrag.
type sippFlow struct {
	out         strings.Builder
	tag         string
	cseq        int
	invite      int    // CSeq of our last INVITE
	refused     bool   // that one was refused
	provisional bool   // a 100 may come
	established bool   // by a 2xx
	last        string // method of the last request received
	version     int    // of our description
	vars        map[string]bool
	err         error
}

// flowScenario returns the scenario. user and tag are the party's own.
func flowScenario(text, user, tag string) (string, error) {
	f := &sippFlow{tag: tag, vars: map[string]bool{}}
	f.out.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<scenario name=\"flow\">\n")
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		f.line(line, user)
		if f.err != nil {
			return "", fmt.Errorf("line %d, %q: %w", i+1, line, f.err)
		}
	}
	f.out.WriteString("  <label id=\"99\"/>\n  <timewait milliseconds=\"200\"/>\n")
	if len(f.vars) > 0 { // SIPp refuses variables that nothing reads
		names := make([]string, 0, len(f.vars))
		for v := range f.vars {
			names = append(names, v)
		}
		fmt.Fprintf(&f.out, "  <Reference variables=%q/>\n", strings.Join(names, ","))
	}
	f.out.WriteString("</scenario>\n")
	return f.out.String(), nil
}

func (f *sippFlow) line(line, user string) {
	parts := strings.Split(line, " | ")
	words := strings.Fields(parts[0])
	if words[0] == "end" {
		f.out.WriteString("  <nop next=\"99\"/>\n")
		return
	}
	if len(words) < 2 {
		f.err = fmt.Errorf("incomplete")
		return
	}
	switch word := words[1]; {
	case words[0] == "pause":
		fmt.Fprintf(&f.out, "  <pause milliseconds=%q/>\n", word)
	case words[0] == "label":
		fmt.Fprintf(&f.out, "  <label id=%q/>\n", word)
		f.established, f.last = false, "INVITE"
	case words[0] == "<" || words[0] == "<?":
		f.receive(word, words[0] == "<?", words[2:], parts[1:])
	case words[0] != ">":
		f.err = fmt.Errorf("begins with none of > < <? pause")
	case word[0] >= '1' && word[0] <= '6':
		f.respond(word, words[2:], parts[1:], user)
	default:
		f.request(word, words[2:], parts[1:], user)
	}
}

func (f *sippFlow) receive(what string, optional bool, how, checks []string) {
	code, err := strconv.Atoi(what)
	attrs := ""
	if optional {
		attrs = ` optional="true"`
	}
	keep := map[string]string{}
	for _, h := range how {
		if field, label, ok := strings.Cut(strings.TrimPrefix(h, "if="), ":"); ok {
			attrs += fmt.Sprintf(" next=%q test=%q", label, "has"+field)
			keep["has"+field] = field
		} else {
			attrs += fmt.Sprintf(" %s=\"true\"", h)
		}
	}
	switch {
	case err != nil:
		f.last = what
		for _, h := range []string{"Via", "CSeq", "From", "To"} {
			keep[h+what] = h
		}
		if what == "INVITE" && !f.established {
			attrs += ` rrs="true"`
			keep["remote"], keep["local"] = "From", "To"
		}
		fmt.Fprintf(&f.out, "  <recv request=%q%s>\n    <action>\n", what, attrs)
	default:
		if f.provisional {
			f.out.WriteString("  <recv response=\"100\" optional=\"true\"/>\n")
			f.provisional = false
		}
		f.refused = code >= 300
		if code > 100 && !f.established {
			if code < 300 {
				attrs += ` rrs="true"`
			}
			keep["remote"] = "To"
		}
		fmt.Fprintf(&f.out, "  <recv response=%q%s>\n    <action>\n", what, attrs)
		if code > 100 && code < 200 && !optional {
			f.ereg("[0-9]+", "RSeq", "rseq", false)
		}
	}
	for v, h := range keep {
		f.ereg(".+", h, v, false)
	}
	for i, c := range checks {
		name, regexp, ok := strings.Cut(c, " ~ ")
		if !ok {
			f.err = fmt.Errorf("field without ~")
		}
		f.ereg(regexp, name, fmt.Sprint("check", i), true)
	}
	f.out.WriteString("    </action>\n  </recv>\n")
}

func (f *sippFlow) ereg(regexp, header, into string, check bool) {
	f.vars[into] = true
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(regexp)) // into memory
	fmt.Fprintf(&f.out, "      <ereg regexp=\"%s\" search_in=\"hdr\" header=\"%s:\" check_it=\"%t\" assign_to=%q/>\n", escaped.String(), header, check, into)
}

func (f *sippFlow) request(method string, words, headers []string, user string) {
	uri := "[next_url]"
	first := method == "INVITE" && !f.established && f.last == ""
	if first {
		uri = "sip:" + user + "@[remote_ip]:[remote_port]"
	}
	remote := "To:[$remote]"
	if first {
		remote = "To: <sip:" + user + "@[remote_ip]:[remote_port]>"
	}
	local := `From: "SIPp" <sip:` + user + `@[local_ip]:[local_port]>;tag=` + f.tag
	if f.vars["local"] {
		local = "From:[$local];tag=" + f.tag
	}
	number := f.invite
	if method != "ACK" && method != "CANCEL" {
		f.cseq++
		number = f.cseq
	}
	branch := fmt.Sprintf("z9hG4bK-[pid]-[call_number]-%s-%d%s", f.tag, number, method)
	switch {
	case method == "INVITE":
		f.invite, f.provisional = number, true
	case method == "CANCEL", method == "ACK" && f.refused:
		branch = strings.TrimSuffix(branch, method) + "INVITE"
		if !f.established {
			uri = "sip:" + user + "@[remote_ip]:[remote_port]"
		}
		if method == "CANCEL" {
			remote = "To: <sip:" + user + "@[remote_ip]:[remote_port]>"
		}
	case method == "ACK":
		f.established = true
	}
	if method == "PRACK" {
		headers = append(headers, "RAck: [$rseq] "+fmt.Sprint(f.invite)+" INVITE")
	}
	retrans := ` retrans="500"`
	if method == "ACK" {
		retrans = ""
	}
	fmt.Fprintf(&f.out, "  <send%s><![CDATA[\n\n%s %s SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=%s\nMax-Forwards: 70\n", retrans, method, uri, branch)
	if !first && method != "CANCEL" && !(method == "ACK" && f.refused) {
		f.out.WriteString("[routes]\n")
	}
	fmt.Fprintf(&f.out, "%s\n%s\nCall-ID: [call_id]\nCSeq: %d %s\n", local, remote, number, method)
	f.rest(method, words, headers, user)
}

func (f *sippFlow) respond(code string, words, headers []string, user string) {
	code, method, ok := strings.Cut(code, "/")
	if !ok {
		method = f.last
	}
	if method == "" {
		f.err = fmt.Errorf("answers nothing")
		return
	}
	tag := f.tag
	if len(words) > 0 && strings.HasPrefix(words[len(words)-1], "tag=") {
		tag, words = words[len(words)-1][4:], words[:len(words)-1]
	}
	retrans := ""
	if method == "INVITE" && code[0] >= '2' {
		retrans = ` retrans="500"`
	}
	to := "To:[$To" + method + "]"
	if (method == "INVITE" || method == "CANCEL") && !f.established {
		to += ";tag=" + tag
	}
	via := "[last_Via:]" // all of them, where the last message is what is answered
	if ok && method != f.last {
		via = "Via:[$Via" + method + "]"
	}
	fmt.Fprintf(&f.out, "  <send%s><![CDATA[\n\nSIP/2.0 %s Answer\n%s\nFrom:[$From%[4]s]\n%[5]s\nCall-ID: [call_id]\nCSeq:[$CSeq%[4]s]\n", retrans, code, via, method, to)
	if method == "INVITE" && code[0] == '2' {
		f.established, f.tag = true, tag
	}
	if code[0] == '3' {
		method = "" // its Contact is in the fields
	}
	f.rest(method, words, headers, user)
}

// rest writes the fields and the body.
func (f *sippFlow) rest(method string, words, headers []string, user string) {
	switch method {
	case "INVITE", "UPDATE", "REFER", "NOTIFY":
		fmt.Fprintf(&f.out, "Contact: <sip:%s@[local_ip]:[local_port];transport=[transport]>\n", user)
	}
	for _, h := range headers {
		f.out.WriteString(h + "\n")
	}
	kind := ""
	if len(words) > 0 {
		kind = words[0]
	}
	code, frag := strings.CutPrefix(kind, "frag:")
	switch {
	case kind == "":
		f.out.WriteString("Content-Length: 0\n\n]]></send>\n")
	case frag:
		fmt.Fprintf(&f.out, "Content-Type: message/sipfrag\nContent-Length: [len]\n\nSIP/2.0 %s Progress\n]]></send>\n", code)
	default:
		fmt.Fprintf(&f.out, "Content-Type: application/sdp\nContent-Length: [len]\n\n%s]]></send>\n", f.sdp(kind))
	}
}

func (f *sippFlow) sdp(kind string) string {
	f.version++
	host, direction, more := "[media_ip]", kind, ""
	switch kind {
	case "zero":
		host, direction = "0.0.0.0", "sendrecv"
	case "big":
		direction, more = "sendrecv", strings.Repeat("a=x-pad:"+strings.Repeat("0123456789", 7)+"\n", 100)
	case "sendrecv", "sendonly", "recvonly", "inactive":
	default:
		f.err = fmt.Errorf("no description %q", kind)
	}
	return fmt.Sprintf("v=0\no=sipp 1 %d IN IP[local_ip_type] [local_ip]\ns=-\nc=IN IP[media_ip_type] %s\nt=0 0\n"+
		"m=audio [media_port] RTP/AVP 0 101\na=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\n%sa=%s\n", f.version, host, more, direction)
}
