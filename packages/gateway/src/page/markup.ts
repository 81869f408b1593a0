/** The page before its first data. */
export const markup = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Floodgate</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
</head>
<body>
<header>
<h1>Floodgate</h1>
<p id="state" role="status">connecting</p>
</header>
<form id="auth" hidden>
<label for="token">Enter the token of this gateway</label>
<div><input id="token" type="password" autocomplete="current-password" autocapitalize="none" spellcheck="false" required>
<button>Show the page</button></div>
<p id="wrong" class="wrong" role="alert"></p>
<p class="none">The token stays in this tab until you close it. Programs send it in the header x-floodgate-token.</p>
</form>
<main id="shown">
<section id="figures" class="figures"></section>
<section id="capped" hidden><h2>Caps in dollars</h2><div id="caps"></div></section>
<section id="windowed" hidden><h2>Windows and spend limits of the account</h2><div id="windows"></div></section>
<section id="parked" hidden><h2>Parked until a reset</h2>
<p id="parkedNote" class="none"></p>
<div id="tickets" class="scroll" tabindex="0" role="region" aria-label="Parked until a reset"></div>
<form id="cancelling" class="line" autocomplete="off">
<label>Admin token, to cancel <input id="canceller" type="password" autocomplete="off" autocapitalize="none" spellcheck="false"></label>
<p id="cancelError" class="wrong" role="alert"></p>
</form></section>
<section id="grown" hidden><h2>Capped jobs</h2><div id="trees"></div></section>
<section><h2>Waiting</h2><div id="waiting" class="scroll" tabindex="0" role="region" aria-label="Waiting"></div></section>
<section><h2>Rejections, retries and pauses</h2><div id="events" class="scroll" tabindex="0" role="region" aria-label="Rejections, retries and pauses"></div></section>
<section><h2>Limits</h2><div id="pools"><p class="none">No call yet. Point a client's base URL at this address.</p></div></section>
<section id="keyed" hidden><h2>Keys, since the start</h2><div id="keys" class="scroll" tabindex="0" role="region" aria-label="Keys"></div></section>
<section><details><summary><h2>New key</h2></summary>
<p id="keysNote" class="none"></p>
<form id="adding" class="line" hidden autocomplete="off">
<label>Name <input id="holder" maxlength="64" autocapitalize="none" spellcheck="false" required></label>
<label>Dollars a day <input id="perDay" type="number" min="0" step="any" placeholder="no cap"></label>
<label>Priority <input id="priority" type="number" step="any" placeholder="by class"></label>
<label>Expires <input id="expires" type="date"></label>
<label>Admin token <input id="admin" type="password" autocomplete="off" autocapitalize="none" spellcheck="false" required></label>
<button>Add the key</button>
<p id="keyError" class="wrong" role="alert"></p>
</form>
<div id="added" hidden role="status">
<p>The key, which is shown only now. It works at once, in place of the provider's key:</p>
<pre id="newKey"></pre>
<p class="none">For gateway.json, so that it stays without --state, and at other gateways:</p>
<pre id="newConfig"></pre>
</div></details></section>
<section><h2>Last hour</h2><div id="hour"></div></section>
<section><h2>Jobs</h2><div id="jobs" class="scroll" tabindex="0" role="region" aria-label="Jobs"></div></section>
<section><h2>Agents</h2><div id="agents" class="scroll" tabindex="0" role="region" aria-label="Agents"></div></section>
<section><h2>Last requests</h2>
<form id="opening" class="line" hidden>
<label for="secret">Enter the token for the list of requests</label>
<input id="secret" type="password" autocomplete="off" autocapitalize="none" spellcheck="false" required>
<button>Show the requests</button>
<p id="refused" class="wrong" role="alert"></p>
</form>
<form id="filter" class="line" hidden>
<label>Model <input id="model" type="search" placeholder="any" autocapitalize="none" spellcheck="false"></label>
<label>Caller <input id="caller" type="search" placeholder="any" autocapitalize="none" spellcheck="false"></label>
<label>Outcome <select id="outcome"><option value="">any</option><option>answered</option><option>passed</option><option>refused</option><option>failed</option><option>hung up</option><option>broke off</option></select></label>
</form>
<p id="requestsNote" class="none"></p>
<div id="requests" class="scroll" tabindex="0" role="region" aria-label="Last requests"></div></section>
<section id="estimated" hidden><details><summary><h2>Estimates</h2></summary><div id="estimates" class="scroll" tabindex="0" role="region" aria-label="Estimates"></div></details></section>
</main>
<script type="module" src="page.js"></script>
</body>
</html>
`
