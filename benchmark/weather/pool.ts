/** Runs tasks, in this thread or in several. */
import { parentPort, Worker } from "node:worker_threads"
import { type Died, type Done, perform, type Task } from "./tasks.ts"

/** Returns the results in the order of the tasks. `onDone` is called after each one. */
export const runAll = async (
  tasks: ReadonlyArray<Task>,
  threads: number,
  onDone: (done: number) => void
): Promise<ReadonlyArray<Done | Died>> => {
  const results: Array<Done | Died> = []
  let done = 0
  const record = (index: number, result: Done | Died) => {
    results[index] = result
    onDone(++done)
  }
  if (threads <= 1 || tasks.length < 2) {
    for (const [index, task] of tasks.entries()) record(index, await perform(task))
    return results
  }
  let next = 0
  const work = () =>
    new Promise<void>((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url))
      const assign = () => {
        if (next >= tasks.length) return void worker.terminate().then(() => resolve())
        const index = next++
        worker.once("message", (result: Done | Died) => {
          record(index, result)
          assign()
        })
        worker.postMessage(tasks[index], [])
      }
      worker.once("error", reject)
      assign()
    })
  await Promise.all(Array.from({ length: Math.min(threads, tasks.length) }, work))
  return results
}

parentPort?.on("message", (task: Task) => {
  void perform(task).then((done) => parentPort!.postMessage(done, []))
})
