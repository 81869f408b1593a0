/** The description of each setting: its comment in `index.ts`, for the help and for editors of a configuration. */

/** The text of a setting, and what applies without it. */
export const docOf = (setting: string): { readonly text: string; readonly standard: string } => {
  const doc = docs.split("\n").find((line) => line.startsWith(`${setting}: `)) ?? ""
  const [text = "", standard = ""] = doc.slice(setting.length + 2).split(" @default ")
  return { text, standard }
}

/** `npm run docs:settings` writes these lines. */
const docs = `
$schema: Where an editor finds the JSON Schema of this file.
upstreams: The providers and their addresses: anthropic, openai, gemini, or another name, which callers put before the path. It replaces the default, and requests go to no other host. @default the public addresses of Anthropic, OpenAI and Gemini
host: Address to listen on; anything but loopback needs a token. @default 127.0.0.1
port: Port to listen on; 0, the default in a program, takes a free one. @default 8788
token: A secret that opens the page and the metrics, and calls if there are no keys. @default none
adminToken: A secret for operators, who may raise and reset caps. It must not be the token or one of the keys. @default none: caps cannot be changed while the gateway runs
requestsToken: A secret that opens the list of the last 500 requests. It must not be the token or one of the keys. @default none: requests are not remembered
hosts: Another host name under which callers may reach it, such as gateway.internal; needed only without a token. Pages of these hosts may call the gateway, too. @default the names of this machine
keys: Keys of the gateway, as floodgate gateway key new NAME prints them: names and hashes, never the keys themselves. A call then needs one of them, and the upstreams get the credentials instead. @default none: callers send the provider's key, which is passed on
rules: Names, weights, priorities and caps of callers, by agent, key, model or headers. Each setting is taken from the first matching rule that has it. @default none
places: The places where each model can be called, by the name in the request. Each has an upstream, and its own name of the model, price and limits. @default none: a request goes to the upstream of its path
placePolicy: Whether a call goes where it starts first (soonest), or to the cheapest place that is fast enough (cheapest). @default soonest
placeWithin: How long a call may take at the cheapest place. @default maxHold
maxHold: The longest time that a call is held; calls that would wait longer are refused at once. @default 5 minutes
silence: How long a waiting caller receives nothing. Some clients give up after a minute of silence. @default 20 seconds
keepAlive: The interval between the bytes that then keep the caller connected. @default 10 seconds
timeout: The longest time until the provider begins to answer an attempt. @default 10 minutes
idleTimeout: The longest silence within a stream. After it a call without content is retried, and a stream with content breaks off. @default 1 minute if the provider sends pings (Anthropic), else 5
drain: How long running calls may continue when the gateway closes. @default 2 minutes
maxBodyBytes: The largest body of a call, in bytes; the default is Anthropic's limit. A larger body gets 413. @default 32 MiB
maxHeldBytes: The most memory for bodies of waiting and running calls, and for answers that are read whole, in bytes. Beyond it, calls get 503, and an answer of more than 64 KB is passed on without reading its usage. @default 256 MiB
maxConnections: The most open connections; further ones are closed. Each takes up to two descriptors. @default 10,000
rateLimitHeaders: Whether answers have the header fields RateLimit-Policy and RateLimit, which say what is left of caps. @default true
streamUsage: Whether Chat Completions streams are asked for their usage. Without it such calls keep their estimates. @default true
credentials: The provider's credential of each upstream, for a gateway with keys: env:NAME, file:PATH, or none. @default the usual variables, such as ANTHROPIC_API_KEY
limits: The providers' limits, as in the library: one set, or pools, whose names change only at a restart. @default learned
concurrency: Calls in flight at once, for each pool: a number, or measured for servers of your own, such as vLLM. { "measuredUpTo": 64 } bounds what is measured. @default as many as the limits allow
maxQueued: The most waiting calls for each pool; further ones get 429. @default 10,000
order: The order of a caller's jobs: fair, or by the sizes that calls state: finish, where a third of the service stays fair, or finish-trusted. @default fair
maxPools: The most accounts and classes of models in use at the same time; calls of further ones get 503. @default 10,000
prices: Prices of models in dollars per million tokens: input, output, cacheRead, cacheWrite and others. @default the published ones
windows: The shares of a subscription's windows for calls that are not interactive, such as { "5h": { "share": 0.7 } }. @default none
tryWindowsEvery: How often one call of an account tries a window that is spent. @default 10 minutes
`
