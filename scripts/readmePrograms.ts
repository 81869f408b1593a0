/** The programs of README.md, as a reader saves them: `scripts/packCheck.ts` compiles and runs them in empty projects. */
import { readFileSync } from "node:fs"
import { join } from "node:path"

export interface Program {
  readonly text: string
  /** Whether it is a program of Effect's, which loads the SDK when it makes the client. */
  readonly loadsSdk: boolean
  /** Whether it imports the SDK itself. */
  readonly importsSdk: boolean
}

export const readmePrograms = (): ReadonlyArray<Program> =>
  [...readFileSync(join(import.meta.dirname, "../README.md"), "utf8").matchAll(/^```ts[^\n]*\n(.*?)^```$/gms)]
    // The page says: uncomment the last line.
    .map(([, text]) => text!.replace(/^\/\/ (Effect\.runPromise\()/m, "$1"))
    .filter((text) => /^import /m.test(text))
    .map((text) => ({
      text,
      loadsSdk: /LlmClient\.layer(Config)?\(/.test(text),
      importsSdk: text.includes('"@anthropic-ai/sdk"')
    }))
