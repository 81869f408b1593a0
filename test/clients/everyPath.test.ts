import { assert, describe, it } from "@effect/vitest"
import Anthropic from "@anthropic-ai/sdk"
import { GoogleGenAI } from "@google/genai"
import * as Effect from "effect/Effect"
import OpenAI from "openai"
import { gatewayTo } from "../support/gateway.ts"
import { serveRaw } from "../support/rawServer.ts"

// Every request that the SDKs can make, sent directly and through the gateway: the provider must see the same bytes.

type Method = (...args: ReadonlyArray<unknown>) => unknown

interface SdkMethod {
  readonly name: string
  readonly owner: object
  readonly method: Method
}

/** Methods that make requests by other methods, wait for something, or make none. */
const others =
  /^(?:constructor|_|then|asSDK)|poll$|stream|runTools|^(?:wait|unwrap|verify|connect|upload$|listenTo)|Uploads?$/i

const isPlain = (prototype: unknown): boolean => prototype === Object.prototype || prototype === null

/** The methods of an object and of the objects in it. */
const methodsOf = (root: object): ReadonlyArray<SdkMethod> => {
  const found: Array<SdkMethod> = []
  const seen = new Set<object>()
  const visit = (owner: object, path: string, depth: number): void => {
    if (seen.has(owner) || depth > 5) return
    seen.add(owner)
    const names = new Set<string>()
    const start = depth === 0 ? undefined : Object.getPrototypeOf(owner)
    for (let at = start; at !== undefined && !isPlain(at); at = Object.getPrototypeOf(at)) {
      for (const name of Object.getOwnPropertyNames(at)) {
        if (typeof Object.getOwnPropertyDescriptor(at, name)?.value === "function") names.add(name)
      }
    }
    for (const [name, value] of Object.entries(owner)) {
      if (typeof value === "function") names.add(name)
      // A resource is an object of a class.
      else if (
        typeof value === "object" &&
        value !== null &&
        !isPlain(Object.getPrototypeOf(value)) &&
        !/^_|client$/i.test(name)
      )
        visit(value as object, path === "" ? name : `${path}.${name}`, depth + 1)
    }
    if (depth === 0) return
    for (const name of [...names].sort()) {
      if (!others.test(name)) found.push({ name: `${path}.${name}`, owner, method: Reflect.get(owner, name) as Method })
    }
  }
  visit(root, "", 0)
  return found
}

const body = {
  model: "m-1",
  max_tokens: 9,
  input: "Hi",
  prompt: "Hi",
  messages: [{ role: "user", content: "Hi" }],
  contents: "Hi",
  name: "żółć o'brien",
  file: new File(["hello"], "żółć.txt"),
  files: [new File(["hello"], "報告.txt")],
  purpose: "assistants"
}

/** Arguments by the names of the parameters: an id where one is in the path, and otherwise the body with all ids that it may name. */
const argumentsOf = (method: Method): ReadonlyArray<unknown> => {
  const text = Function.prototype.toString.call(method)
  const [, list = ""] = /^[^(]*\(([^)]*)\)/.exec(text) ?? []
  const taken = [...text.matchAll(/\{ ([^}]*) \} = (?:params|body|query)/g)].flatMap(([, names = ""]) =>
    names.split(",").flatMap((name) => (name.includes("...") ? [] : [name.split(/[:=]/)[0]!.trim()]))
  )
  const ids = taken.filter((name) => !(name in body) && name !== "betas" && !name.endsWith("s"))
  const params = { ...body, ...Object.fromEntries(ids.map((name) => [name, `${name}'1`])) }
  return list.split(",").flatMap((part) => {
    const name = part.split("=")[0]!.trim()
    if (name === "" || name === "options") return []
    return [/^(?:params|body|query|_?params_?|args?|request)$/.test(name) ? params : `${name}'1`]
  })
}

/** Headers of one connection, and of the framing of a body. The gateway asks for calls to be answered without compression. */
const between = new Set(["host", "connection", "content-length", "transfer-encoding", "accept-encoding"])

/** A request as the provider sees it, without what a client makes up anew each time. */
const seen = (
  text: string
): { readonly line: string; readonly headers: ReadonlyArray<string>; readonly body: string } => {
  const boundary = /boundary=(\S+)/.exec(text)?.[1]
  const fixed = (boundary === undefined ? text : text.replaceAll(boundary, "BOUNDARY")).replaceAll(
    /[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}/g,
    "UUID"
  )
  const end = fixed.indexOf("\r\n\r\n")
  const [line = "", ...headers] = fixed.slice(0, end).split("\r\n")
  const endToEnd = headers.filter((header) => !between.has(header.split(":", 1)[0]!.toLowerCase()))
  return { line: line.replace(/ HTTP\/1\.1$/, ""), headers: endToEnd.sort(), body: fixed.slice(end + 4) }
}

const answer = JSON.stringify({
  id: "x",
  object: "list",
  status: "completed",
  data: [],
  content: [],
  choices: [],
  usage: { input_tokens: 1, output_tokens: 1, prompt_tokens: 1, completion_tokens: 1 },
  usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1 }
})
const response = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${answer.length}\r\n\r\n${answer}`

const sdks: ReadonlyArray<{
  readonly name: string
  readonly make: (url: string) => object
  readonly direct: string
  readonly through: ReadonlyArray<string>
  /** At least this many of its methods make a request here. */
  readonly min: number
}> = [
  {
    name: "openai",
    make: (baseURL) => new OpenAI({ baseURL, apiKey: "k", adminAPIKey: "a", maxRetries: 0, timeout: 5_000 }),
    direct: "/v1",
    through: ["/openai/v1", "/v1"],
    min: 350
  },
  {
    name: "@anthropic-ai/sdk",
    make: (baseURL) => new Anthropic({ baseURL, apiKey: "k", maxRetries: 0, timeout: 5_000 }),
    direct: "",
    through: ["/anthropic", ""],
    min: 350
  },
  {
    name: "@google/genai",
    make: (baseUrl) => new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl, timeout: 5_000 } }),
    direct: "",
    through: ["/gemini", ""],
    min: 35
  }
]

describe.each(sdks)("each request of $name", ({ direct, make, min, through }) => {
  it.live.each(through)("reaches the provider as it was sent, through the gateway at %j", (prefix) =>
    Effect.gen(function* () {
      const upstream = yield* serveRaw(({ socket }) => void socket.write(response))
      const { url } = yield* gatewayTo(upstream.url)
      const own = make(`${upstream.url}${direct}`)
      const other = new Map(methodsOf(make(`${url}${prefix}`)).map((each) => [each.name, each]))
      /** Calls a method, and returns the first request that it makes. What it makes of the answer does not matter. */
      const sent = Effect.fnUntraced(function* ({ method, owner }: SdkMethod) {
        const before = upstream.requests.length
        yield* Effect.promise(async () => {
          try {
            await method.apply(owner, [...argumentsOf(method)])
          } catch {
            // The answer does not fit every method.
          }
        })
        const text = upstream.requests[before]
        return text === undefined ? undefined : seen(text)
      })
      let count = 0
      for (const each of methodsOf(own)) {
        const expected = yield* sent(each)
        if (expected === undefined) continue
        count++
        assert.deepStrictEqual(yield* sent(other.get(each.name)!), expected, each.name)
      }
      assert.isAtLeast(count, min)
    })
  )
})
