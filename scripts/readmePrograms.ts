/** The programs in README.md as a reader would save them. `scripts/packCheck.ts` compiles and runs them in empty projects. */
import { readFileSync } from "node:fs"
import { join } from "node:path"

export interface Program {
  readonly text: string
  /** Whether it is an Effect program, whose client loads the SDK. */
  readonly loadsSdk: boolean
  /** Whether it imports the SDK itself. */
  readonly importsSdk: boolean
}

export const readmePrograms = (): ReadonlyArray<Program> =>
  [...readFileSync(join(import.meta.dirname, "../README.md"), "utf8").matchAll(/^```ts[^\n]*\n(.*?)^```$/gms)]
    // The README tells the reader to uncomment the last line.
    .map(([, text]) => text!.replace(/^\/\/ (Effect\.runPromise\()/m, "$1"))
    .filter((text) => /^import /m.test(text))
    .map((text) => ({
      text,
      loadsSdk: /LlmClient\.layer(Config)?\(/.test(text),
      importsSdk: text.includes('"@anthropic-ai/sdk"')
    }))
