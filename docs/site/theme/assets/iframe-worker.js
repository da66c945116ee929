/* The search runs in a worker, and browsers start none for a page that was opened as a file. There the same script runs in a
   hidden frame instead, and gets and gives its messages as a worker does. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      this.inside = frame.contentWindow
      const page = this
      this.inside.postMessage = data => page.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => load(this.inside, next)), Promise.resolve())
      this.ready = load(this.inside, url)
    }
    set onmessage(listener) { this.addEventListener("message", listener) }
    set onerror(listener) { this.addEventListener("error", listener) }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() { this.inside.frameElement.remove() }
  }
  function load(inside, url) {
    return new Promise((done, failed) => {
      const script = inside.document.createElement("script")
      script.src = new URL(url, location.href).href
      script.onload = done
      script.onerror = failed
      inside.document.documentElement.append(script)
    })
  }
}
