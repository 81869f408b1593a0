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
upstreams: A provider and its address: anthropic, openai, gemini, or another name, which callers put before the path; replaces the default. Requests for anthropic, openai, gemini, bedrock, mistral, cohere, ollama and llama-cpp are recognised by their paths. Requests go to no other host. @default the public addresses of Anthropic, OpenAI and Gemini
host: Address to listen on; anything but loopback needs a token, because other machines can reach it. @default 127.0.0.1
port: Port to listen on; 0 takes a free one. In a program, 0 is the default. @default 8788
token: A secret that opens the page and the metrics, and calls if there are no keys; better in the variable than in a file. @default none
adminToken: A secret for operators, who may raise and reset caps. It must not be the token or one of the keys, which agents have; better in the variable than in a file. @default none: caps cannot be changed while the gateway runs
requestsToken: A secret that opens the list of the last 500 requests, who made them and what they cost, at /floodgate/requests and on the page. It must not be the token or one of the keys, which agents have; better in the variable than in a file. @default none: requests are not remembered
hosts: Another host name under which callers may reach it, such as gateway.internal behind a proxy; needed only without a token. Pages of these hosts may call the gateway, too. @default the names of this machine
keys: Keys of the gateway, as floodgate gateway key new NAME prints them: names and hashes, never the keys themselves. A call then needs one of them in the place of the provider's key, and the upstreams get the credentials instead. @default none: callers send the provider's key, which is passed on
rules: Names, weights, priorities and caps of callers, by agent, key, model or headers. Each setting is taken from the first matching rule that has it. @default none
places: The places where each model can be called, by the name in the request: upstreams, each with its own name of the model, price and limits. An upstream other than that of the request gets its own of the credentials, and none of the caller's. @default none: a request goes to the upstream of its path
placePolicy: Whether a call goes where it starts first, or to the cheapest place that is fast enough. @default soonest
placeWithin: For the cheapest place: how long a call may take. @default maxHold
maxHold: The longest time that a call is held; calls that would wait longer are refused at once. The most impatient of the common clients give up after 10 minutes, and the answer itself also takes time. @default 5 minutes
silence: How long a waiting caller receives nothing, so that the response can still have the provider's status. Some clients give up after a minute of silence. @default 20 seconds
keepAlive: The interval between the bytes that then keep the caller connected. @default 10 seconds
timeout: The longest time that one attempt may take until the provider begins to answer. @default 10 minutes
idleTimeout: The longest silence within a stream. After it a call without content is retried, and a stream with content breaks off. @default 1 minute if the provider sends pings (Anthropic), else 5
drain: How long running calls may continue when the gateway closes. @default 2 minutes
maxBodyBytes: The largest body of a call, in bytes; the default is Anthropic's limit. A larger body is answered with 413. @default 32 MiB
maxHeldBytes: The most memory for the bodies of all waiting and running calls, and for their answers that are read whole, in bytes. Beyond it, calls are answered with 503, and an answer of more than 64 KB is passed on without reading its usage: its call keeps its estimate. @default 256 MiB
maxConnections: The most open connections; further ones are closed. Each has one request at a time, and takes up to two descriptors. @default 10,000
rateLimitHeaders: Whether answers say in the header fields RateLimit-Policy and RateLimit what is left of the caps that apply to their caller. @default true
streamUsage: Whether Chat Completions streams are asked for their usage. Without it such calls keep their estimates. @default true
credentials: The provider's credential of each upstream, for a gateway with keys: env:NAME, file:PATH, or none. @default the usual variables: ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY
limits: The providers' limits, as in the library: one set, or pools, whose names change only at a restart. @default learned
concurrency: Calls in flight at once, for each pool: a number, or measured, for servers of your own that queue any number of calls, such as vLLM, llama.cpp and Ollama. { "measuredUpTo": 64 } never goes beyond that number. @default as many as the limits allow
maxQueued: The most waiting calls for each pool; further ones are answered with 429. A longer queue would take minutes, and then its callers would be refused anyway. @default 10,000
order: The order of a caller's jobs: fair, or those first that would end first if they shared, by the sizes that calls state: finish, where a third of the service stays fair, or finish-trusted. @default fair
maxPools: The most accounts and classes of models in use at the same time; calls of further ones are answered with 503. @default 10,000
prices: Prices of models in dollars per million tokens: input, output, cacheRead, cacheWrite and others. @default the published ones
windows: The shares of a subscription's windows for calls that are not interactive, such as { "5h": { "share": 0.7 } }. @default none
tryWindowsEvery: The time after which one call of an account tries a window that is spent, if it has a share. @default 10 minutes
`
