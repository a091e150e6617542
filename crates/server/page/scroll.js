// Follows an answer to its end, unless the reader has scrolled up; then a button leads back.

const NEAR = 48;

export class Follower {
  constructor(scroller, button) {
    Object.assign(this, { scroller, button, follows: true, last: 0 });
    // Only the reader moves up: text that grows moves nothing, and the page itself scrolls down.
    scroller.addEventListener('scroll', () => {
      const { scrollTop } = scroller;
      if (scrollTop < this.last - 2) this.follows = false;
      if (this.isAtEnd()) this.follows = true;
      this.last = scrollTop;
      this.show();
    }, { passive: true });
    button.addEventListener('click', () => this.toEnd());
    new ResizeObserver(() => this.grown()).observe(scroller);
  }

  isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  /** To be called when content has grown. */
  grown() {
    if (this.follows) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.last = this.scroller.scrollTop;
    }
    this.show();
  }

  toEnd() {
    this.follows = true;
    this.grown();
  }

  show() {
    this.button.hidden = this.follows || this.isAtEnd();
  }
}
