// Looks closer at a picture: wheel, pinch, double click, drag.

const MOST = 12;

export class Zoom {
  constructor(screen, image, told) {
    this.screen = screen;
    this.image = image;
    this.told = told;
    this.fingers = new Map();
    this.reset();
    screen.addEventListener("wheel", event => {
      event.preventDefault();
      this.about(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0022)), ...this.inside(event));
    }, { passive: false });
    screen.addEventListener("dblclick", event => {
      if (event.target.closest(".zoom")) return;
      this.changed ? this.reset() : this.about(3, ...this.inside(event));
    });
    screen.addEventListener("pointerdown", event => this.press(event));
    screen.addEventListener("pointermove", event => this.move(event));
    for (const end of ["pointerup", "pointercancel"])
      screen.addEventListener(end, event => this.fingers.delete(event.pointerId));
  }

  get changed() { return this.scale > 1.001; }

  reset() { this.scale = 1; this.x = this.y = 0; this.apply(); }

  step(by) { this.about(by, this.screen.clientWidth / 2, this.screen.clientHeight / 2); }

  inside({ clientX, clientY }) {
    const box = this.screen.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  }

  // Scales so that what is at a point stays there.
  about(by, x, y) {
    const scale = Math.min(MOST, Math.max(1, this.scale * by));
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.apply();
  }

  press(event) {
    if (event.target.closest(".zoom") || (event.pointerType === "mouse" && event.button !== 0)) return;
    this.screen.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.inside(event));
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.inside(event);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (other) {
      const apart = one => Math.max(10, Math.hypot(one[0] - other[0], one[1] - other[1]));
      this.x += (now[0] - before[0]) / 2;
      this.y += (now[1] - before[1]) / 2;
      this.about(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.changed) {
      this.x += now[0] - before[0];
      this.y += now[1] - before[1];
      this.apply();
    }
  }

  // A picture is never moved out of its frame.
  apply() {
    const { clientWidth: width, clientHeight: height } = this.screen;
    this.x = Math.min(0, Math.max(width * (1 - this.scale), this.x));
    this.y = Math.min(0, Math.max(height * (1 - this.scale), this.y));
    this.image.style.transform = this.changed ? `translate(${this.x}px, ${this.y}px) scale(${this.scale})` : "";
    this.screen.classList.toggle("zoomed", this.changed);
    this.told(this);
  }
}
