// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// maxJWT bounds an identity token, in bytes; GitHub's have about 2000.
const maxJWT = 64 << 10

// Identity yields the identity token (a JWT) that a login presents.
type Identity interface {
	// JWT returns the token as it is now, or an *Error of kind NoIdentity. c lends
	// its clock and its budget for retries.
	JWT(ctx context.Context, c *Client) (string, error)
}

type identityFile struct{ path string }

// IdentityFile is a file that somebody keeps a fresh token in. It is read at each
// login.
func IdentityFile(path string) Identity { return identityFile{path} }

func (f identityFile) JWT(context.Context, *Client) (string, error) {
	const op = "read the identity token"
	file, err := os.Open(f.path)
	if err != nil {
		return "", &Error{Op: op, Kind: NoIdentity, Detail: err.Error(), Err: err}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxJWT+1))
	if err != nil {
		return "", &Error{Op: op, Kind: NoIdentity, Detail: err.Error(), Err: err}
	}
	return checkJWT(op, f.path, string(data))
}

type identityValue struct {
	value  Secret
	origin string
}

// IdentityValue is a token that the caller was given. origin says where it was
// found: "$VAULT_ID_TOKEN".
func IdentityValue(value, origin string) Identity { return identityValue{NewSecret(value), origin} }

func (v identityValue) JWT(context.Context, *Client) (string, error) {
	return checkJWT("read the identity token", v.origin, v.value.secret())
}

// checkJWT keeps what is no JWT, such as another secret named by mistake, from
// being sent.
func checkJWT(op, origin, s string) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", &Error{Op: op, Kind: NoIdentity, Detail: origin + " is empty"}
	case len(s) > maxJWT:
		return "", &Error{Op: op, Kind: NoIdentity, Detail: fmt.Sprintf("%s is longer than %d bytes", origin, maxJWT)}
	}
	if _, ok := payload(s); !ok {
		return "", &Error{Op: op, Kind: NoIdentity, Detail: origin + " holds no JWT"}
	}
	return s, nil
}

// JobIdentity asks for a job's identity token as GitHub Actions and Forgejo have
// it: GET URL&audience=AUDIENCE with the request token as bearer.
type JobIdentity struct {
	// URL is $ACTIONS_ID_TOKEN_REQUEST_URL: https, or http on loopback.
	URL string
	// RequestToken is $ACTIONS_ID_TOKEN_REQUEST_TOKEN.
	RequestToken Secret
	// Audience is what the role's bound_audiences must name.
	Audience string
	// Client sends the request. Its redirects are not followed.
	Client *http.Client
}

var _ Identity = JobIdentity{}

const jobOp = "ask for the job's identity token"

// JWT asks for a new token. Connection errors, 429 and 5xx are retried within the
// budget: the endpoint is known for them.
func (j JobIdentity) JWT(ctx context.Context, c *Client) (string, error) {
	u, err := j.address()
	if err != nil {
		return "", err
	}
	client := *j.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	end := c.cfg.Now().Add(c.cfg.RetryBudget)
	for n := 0; ; n++ {
		jwt, again, err := j.ask(ctx, &client, u)
		if err == nil {
			return checkJWT(jobOp, "the answer", jwt)
		}
		wait := backoff(n)
		if !again || ctx.Err() != nil || c.cfg.Now().Add(wait).After(end) {
			return "", err
		}
		c.cfg.Logger.Debug("request for the identity token repeated", "after", wait, "reason", err.Error())
		c.cfg.Sleep(wait, ctx.Done())
	}
}

// address adds the audience. Everything there is in the URL stays.
func (j JobIdentity) address() (*url.URL, error) {
	u, err := url.Parse(j.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, &Error{Op: jobOp, Kind: BadConfig, Detail: "the request URL is not of the form https://HOST/..."}
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return nil, &Error{Op: jobOp, Kind: Insecure, Detail: "plain HTTP to " + clip(u.Hostname(), 200) + ", which is not loopback: anyone on the way could take the job's identity",
			Hint: "the request URL has to begin with https://"}
	}
	query := u.RawQuery
	if query != "" {
		query += "&"
	}
	u.RawQuery = query + "audience=" + url.QueryEscape(j.Audience)
	return u, nil
}

// attemptJob bounds one request.
const attemptJob = 20 * time.Second

func (j JobIdentity) ask(ctx context.Context, client *http.Client, u *url.URL) (jwt string, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptJob)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", false, &Error{Op: jobOp, Kind: BadConfig, Detail: "the request URL is not usable"}
	}
	req.Header.Set("Authorization", "bearer "+j.RequestToken.secret())
	req.Header.Set("Accept", "application/json")
	fail := func(kind Kind, status int, detail string, cause error) error {
		return &Error{Op: jobOp, Kind: kind, Status: status, Detail: public(detail, j.RequestToken.secret()), Err: cause}
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its URL names the job
		}
		return "", true, fail(NoIdentity, 0, u.Host+": "+err.Error(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWT+1))
	var answer struct {
		Value string `json:"value"`
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return "", true, fail(NoIdentity, resp.StatusCode, "", nil)
	case resp.StatusCode != http.StatusOK:
		e := fail(NoIdentity, resp.StatusCode, "the request was refused", nil).(*Error)
		e.Hint = "does the job have `permissions: id-token: write`?"
		return "", false, e
	case err != nil:
		return "", true, fail(NoIdentity, 0, u.Host+": "+err.Error(), err)
	case json.Unmarshal(body, &answer) != nil:
		return "", false, fail(NoIdentity, 0, "the answer is not of the form {\"value\": TOKEN}", nil)
	}
	return answer.Value, false, nil
}
