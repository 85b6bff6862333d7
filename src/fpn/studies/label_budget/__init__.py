"""What more labels would bring: cheap pilots on parts of the labelled images, and the learning curve through them."""
